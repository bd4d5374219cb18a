"""Super-resolution networks of the Real-ESRGAN forms as `Reconstruct` callables. Needs the `torch` extra.

Two published architectures are read from their checkpoints (tensors only): residual-in-residual dense blocks
(`conv_first`, `body.N.rdbM.convK`, `conv_up1`, ...) and the compact VGG form (`body.N` convolutions and PReLUs,
pixel shuffle at the end). Widths, depths and the scale are taken from the tensors' shapes. A photograph is shrunk
by the scale and upscaled back, so that the pair shares its content.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.media.encode import Pixels, resize
from pipeline.training.backbone import required
from pipeline.training.tensors import read_tensors, reflected_to, run_network

torch: Any = required("torch")
nn: Any = torch.nn

SLOPE = 0.2
RESIDUAL_SCALE = 0.2
DENSE_CONVS = 5


class DenseBlock(nn.Module):  # type: ignore[misc]  # torch is optional, so untyped here
    """Five convolutions, each fed with all earlier results; the sum is scaled and added to the input."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for number in range(1, DENSE_CONVS + 1):
            channels = growth if number < DENSE_CONVS else features
            setattr(self, f"conv{number}", nn.Conv2d(features + (number - 1) * growth, channels, 3, padding=1))

    def forward(self, x: Any) -> Any:
        """Same shape out."""
        seen = x
        for number in range(1, DENSE_CONVS):
            new = nn.functional.leaky_relu(getattr(self, f"conv{number}")(seen), SLOPE)
            seen = torch.cat([seen, new], 1)
        return x + RESIDUAL_SCALE * self.conv5(seen)


class ResidualDenseBlock(nn.Module):  # type: ignore[misc]  # as above
    """Three dense blocks in a residual."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Any) -> Any:
        """Same shape out."""
        return x + RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))


class RrdbNet(nn.Module):  # type: ignore[misc]  # as above
    """Pixels within 0..1, four times the size; a network for scale 2 or 1 unshuffles its input by 2 or 4 first."""

    def __init__(self, blocks: int, features: int, growth: int, unshuffle: int) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.conv_first = nn.Conv2d(3 * unshuffle**2, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualDenseBlock(features, growth) for _ in range(blocks)))
        for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
            setattr(self, name, nn.Conv2d(features, features, 3, padding=1))
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, pixels: Any) -> Any:
        """From float (N, 3, H, W) to (N, 3, scale H, scale W)."""
        x = nn.functional.pixel_unshuffle(pixels, self.unshuffle) if self.unshuffle > 1 else pixels
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = nn.functional.leaky_relu(conv(nn.functional.interpolate(x, scale_factor=2)), SLOPE)
        return self.conv_last(nn.functional.leaky_relu(self.conv_hr(x), SLOPE))


class CompactNet(nn.Module):  # type: ignore[misc]  # as above
    """Convolutions and PReLUs at the small size, pixel shuffle, and the nearest-upscaled input added."""

    def __init__(self, convs: int, features: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[Any] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(convs):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, nn.Conv2d(features, 3 * scale**2, 3, padding=1))

    def forward(self, pixels: Any) -> Any:
        """From float (N, 3, H, W) to (N, 3, scale H, scale W)."""
        fine = nn.functional.pixel_shuffle(self.body(pixels), self.scale)
        return fine + nn.functional.interpolate(pixels, scale_factor=self.scale)


class Upscaler:
    """A `Reconstruct`: shrunk by the scale with antialiasing, upscaled by the network, cut to the native size."""

    def __init__(self, net: Any, scale: int) -> None:
        self.net = net.eval()
        self.scale = scale

    def __call__(self, rgb: Pixels) -> Pixels:
        """Shrink and upscale uint8 (H, W, 3)."""
        full = reflected_to(rgb, self.scale * getattr(self.net, "unshuffle", 1))
        small = resize(full, full.shape[0] // self.scale, full.shape[1] // self.scale, "bicubic")
        return np.ascontiguousarray(run_network(self.net, small)[: rgb.shape[0], : rgb.shape[1]])


def load_upscaler(path: Path) -> Upscaler:
    """A checkpoint of either form, `.safetensors` or `.pth` (tensors only; `params_ema` is taken where it is).

    Raises:
        ValueError: absent, more than tensors, or another architecture.
    """
    tensors = read_tensors(path)
    try:
        net, scale = _rrdb(tensors) if "conv_first.weight" in tensors else _compact(tensors)
        net.load_state_dict(tensors, strict=True)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: neither RRDBNet nor SRVGGNetCompact: {error}") from error
    return Upscaler(net, scale)


def _rrdb(tensors: Mapping[str, Any]) -> tuple[Any, int]:
    features, channels_in = tensors["conv_first.weight"].shape[:2]
    growth = tensors["body.0.rdb1.conv1.weight"].shape[0]
    unshuffle = math.isqrt(channels_in // 3)
    return RrdbNet(_layers(tensors), features, growth, unshuffle), 4 // unshuffle


def _compact(tensors: Mapping[str, Any]) -> tuple[Any, int]:
    last = _layers(tensors) - 1
    features = tensors["body.0.weight"].shape[0]
    scale = math.isqrt(tensors[f"body.{last}.weight"].shape[0] // 3)
    return CompactNet((last - 2) // 2, features, scale), scale


def _layers(tensors: Mapping[str, Any]) -> int:
    found = [int(match[1]) for name in tensors if (match := re.match(r"body\.(\d+)\.", name))]
    if not found:
        raise ValueError("no tensor is named body.N")
    return max(found) + 1
