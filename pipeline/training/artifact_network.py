"""The artifact network: a very small convolutional network on `artifact_maps`, and its ONNX file.

Needs the `torch` extra. Draws, start weights and dropout depend on the seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field

from pipeline.detection.calibration import Bools, Floats
from pipeline.training.artifact_maps import SHAPE
from pipeline.training.backbone import required
from pipeline.training.export import MAX_LOGIT_GAP, OPSET, ExportRefused
from pipeline.training.probe.views import rng_of

torch: Any = required("torch")
nn: Any = torch.nn

INPUT, OUTPUT = "maps", "logit"
_WIDTHS = (16, 32, 48)
_HIDDEN = 32
_DROPOUT = 0.3
_SMALLEST_SPREAD = 0.05
_SCORED_AT_ONCE = 256


class NetworkSettings(BaseModel):
    """How the network is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=100_000)] = 400
    maps_per_step: Annotated[int, Field(ge=2, le=4096)] = 64
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0, description="peak of one cosine cycle")] = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    noise: Annotated[float, Field(ge=0.0, le=1.0, description="standard deviation added to standardised maps")] = 0.1
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class MapExamples:
    """Maps float16 (N, *SHAPE), labels (N,), and how often each is drawn, weights (N,)."""

    x: npt.NDArray[np.float16]
    synthetic: Bools
    weight: Floats


class ArtifactNetwork(nn.Module):  # type: ignore[misc]  # torch is optional, so untyped here
    """About 80,000 weights; where in the spectrum a trace lies counts, so the last map is read by place."""

    def __init__(self, mean: npt.NDArray[np.float32], spread: npt.NDArray[np.float32]) -> None:
        """Maps are standardised by `mean` and `spread`, float32 SHAPE each, of the training set."""
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("spread", torch.from_numpy(spread))
        layers: list[Any] = []
        channels, rows, columns = SHAPE
        for width in _WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels, rows, columns = width, (rows + 1) // 2, (columns + 1) // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(_DROPOUT))
        self.head = nn.Sequential(nn.Linear(channels * rows * columns, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))

    def standardised(self, maps: Any) -> Any:
        """By every frequency's own mean and spread."""
        return (maps - self.mean) / self.spread

    def logits(self, standardised: Any) -> Any:
        """From standardised maps (N, *SHAPE) to (N,)."""
        return self.head(self.body(standardised)).reshape(-1)

    def forward(self, maps: Any) -> Any:
        """From float (N, *SHAPE) to (N,)."""
        return self.logits(self.standardised(maps))


def train(examples: MapExamples, settings: NetworkSettings) -> ArtifactNetwork:
    """Train on draws with replacement, so that a rare source counts as its weight says.

    Raises:
        ValueError: one class only.
    """
    if examples.synthetic.all() or not examples.synthetic.any():
        raise ValueError("synthetic: the network needs maps of both classes")
    share = examples.weight / examples.weight.sum()
    torch.manual_seed(settings.seed)
    rng = rng_of("artifact network", settings.seed)
    sample = examples.x[rng.choice(len(share), min(4096, 4 * len(share)), p=share)].astype(np.float32)
    net = ArtifactNetwork(sample.mean(axis=0), np.maximum(sample.std(axis=0), np.float32(_SMALLEST_SPREAD)))
    optimiser = torch.optim.AdamW(net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=settings.steps)
    labels = examples.synthetic.astype(np.float32)
    net.train()
    for drawn in rng.choice(len(share), (settings.steps, settings.maps_per_step), p=share):
        maps = net.standardised(torch.from_numpy(examples.x[drawn].astype(np.float32)))
        logits = net.logits(maps + settings.noise * torch.randn_like(maps))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels[drawn]))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()
    return net


def image_logits(net: ArtifactNetwork, x: npt.NDArray[np.float16]) -> Floats:
    """Mean logit over the crops of each image, float64 (M,), of maps (M, crops, *SHAPE)."""
    flat = x.reshape(-1, *SHAPE)
    with torch.inference_mode():
        parts = [
            net(torch.from_numpy(flat[start : start + _SCORED_AT_ONCE].astype(np.float32))).numpy()
            for start in range(0, len(flat), _SCORED_AT_ONCE)
        ]
    found: Floats = np.concatenate(parts).reshape(x.shape[:2]).mean(axis=1, dtype=np.float64)
    return found


def export(net: ArtifactNetwork, path: Path, check_on: npt.NDArray[np.float32]) -> float:
    """Write the ONNX file: float32 `maps` (N, *SHAPE) in, float32 `logit` (N,) out.

    Args:
        net: trained.
        path: file to write; it is removed again when it is refused.
        check_on: maps (N, *SHAPE) that both are run on.

    Returns:
        The largest |logit difference|, below `MAX_LOGIT_GAP`.

    Raises:
        ExportRefused: the difference is larger.
    """
    torch.onnx.export(
        net.eval(),
        (torch.zeros(2, *SHAPE),),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
        opset_version=OPSET,
        dynamo=False,  # the newer exporter needs onnxscript and gives the same graph for this network
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = net(torch.from_numpy(check_on)).numpy()
    gap = float(np.max(np.abs(session.run([OUTPUT], {INPUT: check_on})[0] - wanted)))
    if not gap < MAX_LOGIT_GAP:  # NaN is refused, too
        path.unlink()
        raise ExportRefused(f"{path.name}: logits differ from torch by {gap:.2g}; report the torch version")
    return gap
