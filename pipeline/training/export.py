"""A torch classifier as the ONNX file of a bundle: uint8 `crops` in, float32 `logit` out, checked against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from pipeline.detection.classifier.backends.onnx import INPUT, OUTPUT
from pipeline.media.encode import Pixels
from pipeline.training.backbone import required
from pipeline.training.networks import CropsToLogits, Normalisation
from pipeline.training.probe.views import rng_of

MAX_LOGIT_GAP = 1e-3
HALF_PRECISION_FROM = 1024
"""Initialisers of at least so many values are stored as float16; they are computed in float32."""
OPSET = 17

Storage = Literal["half", "single"]


class ExportRefused(Exception):
    """The file does not answer as the network does; the text says by how much and what to do."""


def export_classifier(
    net: Any,
    normalisation: Normalisation,
    size_px: int,
    path: Path,
    *,
    storage: Storage = "half",
    check_on: Pixels | None = None,
) -> float:
    """Write the ONNX file, run it, and compare it with torch on the same crops.

    Args:
        net: float (N, 3, S, S), normalised, to (N, 1) or (N,).
        normalisation: becomes part of the graph.
        size_px: side of a crop.
        path: file to write; it is removed again when it is refused.
        storage: `half` keeps large weights as float16 and computes in float32.
        check_on: uint8 (N, S, S, 3); none: seeded noise, smooth and flat crops.

    Returns:
        The largest |logit difference|, below `MAX_LOGIT_GAP`.

    Raises:
        ExportRefused: the difference is larger, or a weight does not fit float16.
    """
    torch, onnx = required("torch"), required("onnx")
    module = CropsToLogits(net, normalisation).eval().cpu()
    example = torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8)
    torch.onnx.export(
        module,
        (example,),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
        opset_version=OPSET,
        dynamo=False,  # the newer exporter needs onnxscript and gives the same graph for these networks
    )
    model = onnx.load(str(path))
    if storage == "half":
        store_as_half(model)
    model.producer_name, model.doc_string = "mediasieve", ""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    crops = check_crops(size_px) if check_on is None else check_on
    gap = logit_gap(module, path, crops)
    if not gap < MAX_LOGIT_GAP:  # NaN is refused, too
        path.unlink()
        way_out = "store it in single precision" if storage == "half" else "report the network that exports so"
        raise ExportRefused(f"{path.name}: logits differ from torch by {gap:.2g} >= {MAX_LOGIT_GAP:g}; {way_out}")
    return gap


def logit_gap(module: Any, path: Path, crops: Pixels) -> float:
    """Largest |logit difference| between the torch module and the ONNX file; NaN if either gives one."""
    torch = required("torch")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = np.concatenate([module(torch.from_numpy(crop[None].copy())).numpy() for crop in crops])
    got = np.concatenate([session.run([OUTPUT], {INPUT: crop[None]})[0] for crop in crops])
    batched = session.run([OUTPUT], {INPUT: crops})[0]
    return float(np.max(np.abs(np.stack([got, batched]) - wanted)))


def check_crops(size_px: int) -> Pixels:
    """Four crops, uint8 (4, S, S, 3): noise, smoothed noise, a ramp and a flat crop; the same each time."""
    rng = rng_of("export check", size_px)
    noise = rng.integers(0, 256, (size_px, size_px, 3), np.uint8)
    coarse = rng.integers(0, 256, (size_px // 8 + 1, size_px // 8 + 1, 3), np.uint8)
    smooth = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:size_px, :size_px]
    ramp = np.broadcast_to(np.linspace(0, 255, size_px).astype(np.uint8)[None, :, None], noise.shape)
    return np.stack([noise, smooth, ramp, np.full_like(noise, 128)])


def store_as_half(model: Any) -> None:
    """Large float32 initialisers become float16 and a Cast, which ONNX Runtime folds at load time.

    Raises:
        ExportRefused: a weight that float16 cannot hold.
    """
    onnx = required("onnx")
    casts = []
    for tensor in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < HALF_PRECISION_FROM:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise ExportRefused(f"{tensor.name} does not fit float16; store it in single precision")
        stored = f"{tensor.name}.half"
        casts.append(onnx.helper.make_node("Cast", [stored], [tensor.name], to=onnx.TensorProto.FLOAT))
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(onnx.numpy_helper.from_array(half, stored))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
