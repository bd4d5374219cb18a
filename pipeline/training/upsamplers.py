"""Home-made autoencoders whose upsampling differs in kind and stride, partly trained on given photographs.

    python -m pipeline.training.upsamplers DATA --out DIR [--steps 300] [--seed 0] [--kinds ...] [--strides ...]

Five decoders of one architecture teach one architecture's traces; these add nearest + convolution, transposed
convolution and pixel shuffle, at strides 4, 8 and 16. "Partly trained" is on purpose: a few hundred steps give
recognisable pictures with the raw trace of the upsampling still in them. Needs the `torch` extra.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.progress import track

from pipeline.media.encode import Pixels
from pipeline.training.backbone import required
from pipeline.training.dataset import Labelled, read_manifest, read_pixels
from pipeline.training.degrade import cut
from pipeline.training.probe.views import padded, rng_of
from pipeline.training.tensors import read_with_text, through, write_with_text

torch: Any = required("torch")
nn: Any = torch.nn

Kind = Literal["nearest", "transposed", "shuffle"]
Stride = Literal[4, 8, 16]
CROP_PX = 64
BATCH = 4
LEARNING_RATE = 2e-3
GRADIENT_WEIGHT = 0.5
"""Weight of the L1 loss of first differences: without it, so few steps give only a blur."""


class UpsamplerSpec(BaseModel):
    """The architecture; it is stored beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[Kind, Field(description="how each doubling of the size is done")]
    stride: Annotated[Stride, Field(description="pixels a side for one latent position")] = 8
    width: Annotated[int, Field(ge=4, le=256, description="channels inside")] = 20
    latent_channels: Annotated[int, Field(ge=3, le=64)] = 8
    seed: Annotated[int, Field(ge=0, description="of the initial weights and of the crops")] = 0

    @property
    def name(self) -> str:
        """Family name and file stem."""
        return f"{self.kind}-s{self.stride}-seed{self.seed}"


class UpsamplerAutoencoder(nn.Module):  # type: ignore[misc]  # torch is optional, so untyped here
    """Strided convolutions down to the latent grid, the spec's kind of upsampling back. Pixels within 0..1."""

    def __init__(self, spec: UpsamplerSpec) -> None:
        super().__init__()
        self.stride = spec.stride
        doublings = spec.stride.bit_length() - 1
        width = spec.width
        down: list[Any] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        up: list[Any] = [nn.Conv2d(spec.latent_channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(doublings):
            down += [nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU(), _Residual(width)]
            up += [_Residual(width), *_doubling(spec.kind, width), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Conv2d(width, spec.latent_channels, 3, padding=1))
        self.decoder = nn.Sequential(*up, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, pixels: Any) -> Any:
        """From float (N, 3, H, W) to the same; H and W are multiples of the stride.

        The block means join the latents, so that few steps of training do not go into colour.
        """
        centred = pixels - 0.5
        means = nn.functional.avg_pool2d(centred, self.stride)
        latents = self.encoder(centred)
        latents = torch.cat([latents[:, :3] + 4.0 * means, latents[:, 3:]], 1)
        return self.decoder(latents) + 0.5


class _Residual(nn.Module):  # type: ignore[misc]  # as above
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        nn.init.zeros_(self.inner[-1].weight)
        nn.init.zeros_(self.inner[-1].bias)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.inner(x))


def _doubling(kind: Kind, width: int) -> list[Any]:
    if kind == "nearest":
        return [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, width, 3, padding=1)]
    if kind == "transposed":
        return [nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)]
    return [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]


class Upsampler:
    """A `Reconstruct`: uint8 (H, W, 3) through the autoencoder, any size."""

    def __init__(self, spec: UpsamplerSpec, net: Any) -> None:
        self.spec = spec
        self.net = net.eval()

    def __call__(self, rgb: Pixels) -> Pixels:
        """Encode and decode."""
        return through(self.net, rgb, self.spec.stride)


def train(
    spec: UpsamplerSpec, crop_of: Callable[[int], Pixels], steps: int, progress: str = ""
) -> tuple[Upsampler, list[float]]:
    """Train for so many steps on the CPU.

    Args:
        spec: the architecture and the seed.
        crop_of: training crop of a number, uint8 (S, S, 3), S a multiple of the stride.
        steps: gradient steps of `BATCH` crops.
        progress: title of a progress bar; empty for none.

    Returns:
        The reconstruction, and the loss of every step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        net = UpsamplerAutoencoder(spec)
    optimiser = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=max(2, steps))
    losses = []
    for step in track(range(steps), progress, disable=not progress):
        crops = np.stack([crop_of(step * BATCH + i) for i in range(BATCH)])
        wanted = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(255.0)
        loss = reconstruction_loss(net(wanted), wanted)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return Upsampler(spec, net), losses


def reconstruction_loss(got: Any, wanted: Any) -> Any:
    """Mean |difference| of pixels and, weighted, of their first differences."""
    loss = (got - wanted).abs().mean()
    for axis in (2, 3):
        loss = loss + GRADIENT_WEIGHT * (got.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean()
    return loss


def crops_of(rows: Sequence[Labelled], seed: int, size_px: int = CROP_PX, keep: int = 200) -> Callable[[int], Pixels]:
    """Seeded random crops of the first `keep` photographs in an order drawn from the seed.

    Raises:
        ValueError: no photograph among the rows.
    """
    photographs = sorted((row for row in rows if not row.synthetic), key=lambda row: row.sha256)
    if not photographs:
        raise ValueError("rows: no photograph to train an upsampler on")
    order = rng_of("upsampler", seed).permutation(len(photographs))[:keep]
    images = [padded(read_pixels(photographs[int(place)]), size_px) for place in order]

    def crop(number: int) -> Pixels:
        rng = rng_of("upsampler crop", seed, number)
        image = images[int(rng.integers(len(images)))]
        top, left = (int(rng.integers(0, side - size_px + 1)) for side in image.shape[:2])
        return cut(image, top, left, size_px, size_px)

    return crop


def save(upsampler: Upsampler, path: Path) -> None:
    """Weights and spec as one safetensors file."""
    write_with_text(path, upsampler.net.state_dict(), {"spec": upsampler.spec.model_dump_json()})


def load_upsampler(path: Path) -> Upsampler:
    """Read what `save` wrote.

    Raises:
        ValueError: no such file, or its weights do not fit its spec.
    """
    tensors, text = read_with_text(path)
    try:
        spec = UpsamplerSpec.model_validate_json(text.get("spec", ""))
        net = UpsamplerAutoencoder(spec)
        net.load_state_dict(tensors, strict=True)
    except (ValidationError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}; write it anew with pipeline.training.upsamplers") from error
    return Upsampler(spec, net)


def load_upsamplers(directory: Path) -> dict[str, Upsampler]:
    """Every `.safetensors` file of a directory, by family name (kind and stride; seeds apart)."""
    found = [load_upsampler(path) for path in sorted(directory.glob("*.safetensors"))]
    return {upsampler.spec.name: upsampler for upsampler in found}


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.upsamplers")
    parser.add_argument("data", type=Path, help="photographs and manifest.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=get_args(Kind))
    parser.add_argument("--strides", nargs="+", type=int, choices=get_args(Stride), default=get_args(Stride))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    crop = crops_of(read_manifest(options.data), options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    for kind, stride in product(options.kinds, options.strides):
        spec = UpsamplerSpec(kind=kind, stride=stride, seed=options.seed)
        upsampler, _ = train(spec, crop, options.steps, spec.name)
        save(upsampler, options.out / f"{spec.name}.safetensors")


if __name__ == "__main__":
    main()
