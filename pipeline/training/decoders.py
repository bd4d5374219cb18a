"""Autoencoders of diffusion models as `Reconstruct` callables: what a generated image's pixels came out of.

Two forms: an encoder and a decoder file of the tiny TAESD kind, read into the module below; and any diffusers
`AutoencoderKL` or `AutoencoderTiny` from a directory or a hub id. Needs the `torch` extra; the second, diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.media.encode import Pixels
from pipeline.training.backbone import required
from pipeline.training.tensors import read_tensors, through

torch: Any = required("torch")
nn: Any = torch.nn

TINY_STRIDE = 8
LATENT_RANGE = 3.0
"""The tiny decoder squashes latents into +-3 by tanh before its first convolution."""

POOL_GROUPS = 4
_CHANNEL_RATIO = 4
_UPSAMPLE_AT = (6, 11, 16)
_SUFFIXES = (".safetensors", ".pth", ".pt")


class TinyBlock(nn.Module):  # type: ignore[misc]  # torch is optional, so untyped here
    """Three 3x3 convolutions around a skip; where the checkpoint has one, a grouped-norm branch is added first."""

    def __init__(self, channels_in: int, channels: int, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.skip = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1, bias=False)
        inner = _CHANNEL_RATIO * channels_in
        self.pool = (
            nn.Sequential(
                nn.Conv2d(channels_in, inner, 1, bias=False),
                nn.GroupNorm(POOL_GROUPS, inner),
                nn.ReLU(),
                nn.Conv2d(inner, channels_in, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, x: Any) -> Any:
        """From float (N, C, H, W) to the block's channels."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + self.skip(x))


class _Squash(nn.Module):  # type: ignore[misc]  # as above
    def forward(self, latent: Any) -> Any:
        return torch.tanh(latent / LATENT_RANGE) * LATENT_RANGE


class TinyAutoencoder(nn.Module):  # type: ignore[misc]  # as above
    """A tiny encoder and decoder, float (N, 3, H, W) within 0..1 to the same; H and W multiples of 8."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, pixels: Any) -> Any:
        """Encode and decode."""
        return self.decoder(self.encoder(pixels))


class _LatentMean(nn.Module):  # type: ignore[misc]  # as above
    """A diffusers autoencoder on pixels within 0..1: the mean of the latent distribution, without noise."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pixels: Any) -> Any:
        encoded = self.autoencoder.encode(pixels * 2.0 - 1.0)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return self.autoencoder.decode(latents).sample * 0.5 + 0.5


class Decoder:
    """A `Reconstruct`: uint8 (H, W, 3) of any size through encoder and decoder, at its native size."""

    def __init__(self, net: Any, stride: int) -> None:
        self.net = net.eval()
        self.stride = stride

    def __call__(self, rgb: Pixels) -> Pixels:
        """Encode and decode; sides that are no multiple of the stride are reflected and cut back."""
        return through(self.net, rgb, self.stride)


def tiny_side(tensors: Mapping[str, Any], side: Literal["encoder", "decoder"]) -> Any:
    """A tiny encoder or decoder whose layers lie where the checkpoint's names say.

    A name is LAYER.weight for a convolution (strided where the encoder's has no bias), LAYER.conv.N.weight for a
    block. The decoder squashes at layer 0 and doubles the size before each convolution without a bias.

    Raises:
        ValueError: tensors of another architecture.
    """
    numbers = sorted({int(name.partition(".")[0]) for name in tensors if re.match(r"\d+\.", name)})
    if not numbers or any(not re.match(r"\d+\.", name) for name in tensors):
        raise ValueError(f"{side}: tensors are not named LAYER.weight or LAYER.conv.N.weight, as a tiny {side}'s are")
    layers = []
    for number in range(numbers[-1] + 1):
        own = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{number}.")}
        layers.append(_layer(own, number, side))
    net = nn.Sequential(*layers)
    try:
        net.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{side}: {error}") from error
    return net


def _layer(own: Mapping[str, Any], number: int, side: str) -> Any:
    if "conv.0.weight" in own:
        channels, channels_in = own["conv.0.weight"].shape[:2]
        return TinyBlock(channels_in, channels, "pool.0.weight" in own)
    if "weight" in own:
        channels, channels_in, size = own["weight"].shape[:3]
        biased = "bias" in own
        stride = 2 if side == "encoder" and not biased else 1
        return nn.Conv2d(channels_in, channels, size, stride=stride, padding=size // 2, bias=biased)
    if number == 0:
        return _Squash()
    return nn.Upsample(scale_factor=2) if number in _UPSAMPLE_AT else nn.ReLU()


def load_tiny(encoder: Path, decoder: Path) -> Decoder:
    """A tiny autoencoder from its two files, `.safetensors` or `.pth` (tensors only).

    Raises:
        ValueError: a file that is absent, holds more than tensors, or is of another architecture.
    """
    sides: dict[str, Any] = {}
    for side, path in (("encoder", encoder), ("decoder", decoder)):
        try:
            sides[side] = tiny_side(read_tensors(path), side)  # type: ignore[arg-type]  # one of the two literals above
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return Decoder(TinyAutoencoder(sides["encoder"], sides["decoder"]), TINY_STRIDE)


def load_tiny_directory(directory: Path, names: Iterable[str] | None = None) -> dict[str, Decoder]:
    """Every NAME_encoder + NAME_decoder pair of a directory, by NAME.

    Args:
        directory: holds `.safetensors`, `.pth` or `.pt` files.
        names: only these; None for all.

    Raises:
        ValueError: a wanted or half pair is missing, or none is there.
    """
    files = {path.stem: path for path in sorted(directory.iterdir()) if path.suffix in _SUFFIXES}
    found = sorted({stem.removesuffix("_encoder") for stem in files if stem.endswith("_encoder")})
    wanted = found if names is None else list(names)
    if not wanted:
        raise ValueError(f"{directory}: no NAME_encoder and NAME_decoder files ({', '.join(_SUFFIXES)})")
    for name in wanted:
        for side in ("encoder", "decoder"):
            if f"{name}_{side}" not in files:
                raise ValueError(f"{directory / f'{name}_{side}'}: absent; there are {', '.join(files) or 'none'}")
    return {name: load_tiny(files[f"{name}_encoder"], files[f"{name}_decoder"]) for name in wanted}


def load_diffusers(
    where: str, kind: Literal["kl", "tiny"] = "kl", subfolder: str | None = None, revision: str | None = None
) -> Decoder:
    """A diffusers autoencoder; only safetensors weights are read.

    Args:
        where: a directory that `save_pretrained` wrote, or a hub id OWNER/NAME.
        kind: `AutoencoderKL` or `AutoencoderTiny`.
        subfolder: such as `vae` inside a whole pipeline.
        revision: commit on the hub.

    Raises:
        ValueError: no such weights there.
    """
    diffusers = required("diffusers")
    cls = diffusers.AutoencoderKL if kind == "kl" else diffusers.AutoencoderTiny
    try:
        net = cls.from_pretrained(where, subfolder=subfolder, revision=revision, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: {error}; give a directory or hub id with {cls.__name__} weights") from error
    doublings = len(net.config.block_out_channels) - 1
    return Decoder(_LatentMean(net.float()), 2**doublings)
