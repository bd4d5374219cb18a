"""EfficientNet-B0 and ResNet-50 detectors, as torchvision or timm name their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.training.backbone import required
from pipeline.training.importers.base import (
    Imported,
    ImportOptions,
    ImportRefused,
    loaded,
    one_logit,
    outputs_of,
    without_prefix,
)
from pipeline.training.networks import Normalisation
from pipeline.training.tensors import read_tensors

DEFAULT_SIZE_PX = 256
_NOTE = (
    "Serves native-pixel crops. ImageNet's mean and standard deviation are assumed; a checkpoint trained on resized"
    " images sees other statistics here and needs its calibration."
)


def efficientnet_b0(path: Path, options: ImportOptions) -> Imported:
    """The form of torchvision (`features.0.0.weight`) or of timm (`conv_stem.weight`).

    Raises:
        ImportRefused: another architecture, or a head of neither 1 nor 2 outputs.
    """
    tensors = _read(path, options)
    if "features.0.0.weight" in tensors:
        outputs = outputs_of(tensors, "classifier.1.weight", path)
        net = required("torchvision.models").efficientnet_b0(num_classes=outputs)
        name = "torchvision-efficientnet_b0"
    else:
        outputs = outputs_of(tensors, "classifier.weight", path)
        net = required("timm").create_model("efficientnet_b0", num_classes=outputs)
        name = "timm-efficientnet_b0"
    return _imported(name, loaded(net, tensors, path), outputs, options)


def resnet50(path: Path, options: ImportOptions) -> Imported:
    """ResNet-50; torchvision and timm name its tensors alike.

    Raises:
        ImportRefused: another architecture, or a head of neither 1 nor 2 outputs.
    """
    tensors = _read(path, options)
    outputs = outputs_of(tensors, "fc.weight", path)
    net = required("torchvision.models").resnet50(num_classes=outputs)
    return _imported("resnet50", loaded(net, tensors, path), outputs, options)


def _read(path: Path, options: ImportOptions) -> dict[str, Any]:
    if options.backbone is not None:
        raise ImportRefused(f"{options.backbone}: --backbone is for univfd; a convolutional checkpoint is whole")
    try:
        return without_prefix(read_tensors(path))
    except ValueError as error:
        raise ImportRefused(str(error)) from error


def _imported(name: str, net: Any, outputs: int, options: ImportOptions) -> Imported:
    return Imported(name, one_logit(net, outputs), Normalisation(), options.size_px or DEFAULT_SIZE_PX, _NOTE)
