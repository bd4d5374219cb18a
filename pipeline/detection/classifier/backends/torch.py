"""PyTorch: EfficientNet-B0, ResNet-50 or a CLIP vision tower with a linear head. Needs the `torch` extra."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.detection.calibration import Calibration
from pipeline.detection.classifier.backends.base import BackendError, Logits, checked
from pipeline.detection.classifier.preprocess import Pixels

CNN_FILE = "model.safetensors"
CLIP_HEAD_FILE = "head.safetensors"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""The published normalisation of CLIP's vision tower, as are timm's for the CNNs."""


class TorchSettings(BaseModel):
    """Which weights PyTorch runs, and how.

    A directory or hub repository holds, for a CNN, `model.safetensors` (one output); for CLIP, the files of
    transformers' `CLIPVisionModelWithProjection` and `head.safetensors`: `weight` (1, D) and `bias` (1,).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["torch"] = "torch"
    architecture: Annotated[
        Literal["efficientnet_b0", "resnet50", "clip"],
        Field(description="the network that the weights are of"),
    ]
    weights: Annotated[str, Field(min_length=1, max_length=4096, description="directory, or hub id OWNER/NAME")]
    revision: Annotated[
        str | None, Field(pattern=r"^[0-9a-f]{40}$", description="commit on the hub; a hub id needs it")
    ] = None
    calibration: Annotated[
        Calibration, Field(description="of these weights; the bundle's belongs to the bundle's own model")
    ]
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,2})?)$", description="cpu, cuda or cuda:N")] = "cpu"
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"], Field(description="autocast; float16 on CUDA only")
    ] = "float32"

    @model_validator(mode="after")
    def _half_needs_cuda(self) -> Self:
        if self.precision == "float16" and self.device == "cpu":
            raise ValueError("precision float16 needs device cuda; use bfloat16 or float32 on the CPU")
        return self


class TorchBackend:
    """Channels-last inference, autocast, pinned staging memory on CUDA. Weights from safetensors only."""

    def __init__(self, settings: TorchSettings) -> None:
        self.model = f"{settings.architecture}:{settings.weights}"[-128:]
        self._settings = settings
        self._torch: Any = None
        self._net: Any = None
        self._mean: Any = None
        self._scale: Any = None

    def open(self) -> None:
        """Load network and weights onto the device.

        Raises:
            BackendError: torch is missing, the device is absent, or the weights do not fit the architecture.
        """
        torch = _required("torch")
        device = self._settings.device
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendError(f"device={device}, but torch finds no CUDA device; set device=cpu")
        net, mean, std = _load(torch, self._settings)
        self._torch = torch
        self._net = net.eval().to(device, memory_format=torch.channels_last)
        self._mean, self._scale = (torch.tensor(v, device=device).mul(255.0).reshape(1, 3, 1, 1) for v in (mean, std))

    def score(self, crops: Pixels) -> Logits:
        """See `Backend.score`."""
        if self._net is None:
            raise BackendError(f"{self.model}: score() before open()")
        torch = self._torch
        with torch.inference_mode(), self._autocast():
            pixels = self._on_device(crops).permute(0, 3, 1, 2).float()
            logits = self._net(((pixels - self._mean) / self._scale).contiguous(memory_format=torch.channels_last))
        return checked(logits.float().cpu().numpy().reshape(-1), len(crops), self.model)

    def close(self) -> None:
        """Free the network and, on CUDA, its cached memory."""
        self._net = self._mean = self._scale = None
        if self._torch is not None and self._settings.device.startswith("cuda"):
            self._torch.cuda.empty_cache()

    def _on_device(self, crops: Pixels) -> Any:
        staged = self._torch.from_numpy(np.ascontiguousarray(crops))
        if self._settings.device == "cpu":
            return staged
        return staged.pin_memory().to(self._settings.device, non_blocking=True)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._settings.precision == "float32":
            return contextlib.nullcontext()
        kind = self._settings.device.partition(":")[0]
        context: contextlib.AbstractContextManager[Any] = self._torch.autocast(
            kind, dtype=getattr(self._torch, self._settings.precision)
        )
        return context


def _load(torch: Any, settings: TorchSettings) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    directory = _directory(settings)
    broken = _required("safetensors").SafetensorError
    try:
        if settings.architecture == "clip":
            return _clip(torch, directory), CLIP_MEAN, CLIP_STD
        net = _required("timm").create_model(settings.architecture, pretrained=False, num_classes=1)
        stored = _required("safetensors.torch").load_file(str(directory / CNN_FILE))
        net.load_state_dict(stored, strict=True)
        return net, net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
    except (OSError, RuntimeError, KeyError, ValueError, broken) as error:
        raise BackendError(f"{directory}: no usable {settings.architecture} weights: {error}") from error


def _clip(torch: Any, directory: Path) -> Any:
    tower = _required("transformers").CLIPVisionModelWithProjection.from_pretrained(
        str(directory), use_safetensors=True, local_files_only=True
    )
    stored = _required("safetensors.torch").load_file(str(directory / CLIP_HEAD_FILE))
    head = torch.nn.Linear(tower.config.projection_dim, 1)
    head.load_state_dict(stored, strict=True)
    size_px = tower.config.image_size

    class TowerWithHead(torch.nn.Module):  # type: ignore[misc]  # torch is optional, so untyped here
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.head = tower, head

        def forward(self, pixels: Any) -> Any:
            # The tower reads meaning, not traces, and has a fixed input size: here resizing is right.
            resized = torch.nn.functional.interpolate(pixels, size=(size_px, size_px), mode="bicubic", antialias=True)
            return self.head(self.tower(pixel_values=resized).image_embeds)

    return TowerWithHead()


def _directory(settings: TorchSettings) -> Path:
    local = Path(settings.weights)
    if local.is_dir():
        return local
    if settings.revision is None:
        raise BackendError(f"weights {settings.weights!r}: no such directory; for a hub id set `revision` to a commit")
    hub = _required("huggingface_hub")
    try:
        found = hub.snapshot_download(
            settings.weights, revision=settings.revision, allow_patterns=["*.safetensors", "*.json"]
        )
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise BackendError(f"weights {settings.weights!r} at {settings.revision}: {error}") from error
    return Path(found)


def _required(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BackendError(f"the torch backend needs {error.name}: install mediasieve[torch]") from error
