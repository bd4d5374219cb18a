"""A decoder fine-tuned against spectral detection: the robustness suite's adversary.

    python -m pipeline.training.adversarial DATA --encoder FILE --decoder FILE --out FILE [--steps 200]

Only the last layers move, so the pictures stay those of the decoder while their log radial spectrum and the peaks
of the upsampling grid are pulled towards the photographs'. Needs the `torch` extra.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import track

from pipeline.evaluation.robustness.spectral_loss import spectral_loss
from pipeline.media.encode import Pixels
from pipeline.training.backbone import required
from pipeline.training.dataset import read_manifest
from pipeline.training.decoders import Decoder, load_tiny
from pipeline.training.tensors import write_with_text
from pipeline.training.upsamplers import crops_of

torch: Any = required("torch")


class AdversarySettings(BaseModel):
    """How a decoder is fine-tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=100_000)] = 200
    crops_per_step: Annotated[int, Field(ge=1, le=256)] = 2
    size_px: Annotated[int, Field(ge=64, le=512, multiple_of=16, description="side of a training crop")] = 96
    last_layers: Annotated[int, Field(ge=1, le=50, description="layers with weights that move, from the end")] = 3
    learning_rate: Annotated[float, Field(gt=0.0, le=0.1)] = 1e-3
    pixel_weight: Annotated[float, Field(ge=0.0, le=1e3, description="of the mean |pixel difference|")] = 10.0
    seed: Annotated[int, Field(ge=0, description="of the crops")] = 0


@dataclass(frozen=True)
class Adversary:
    """The fine-tuned decoder, and the spectral loss of the same crops before and after."""

    decoder: Decoder
    before: float
    after: float


def against_spectrum(decoder: Decoder, crop_of: Callable[[int], Pixels], settings: AdversarySettings) -> Adversary:
    """Fine-tune a copy of a decoder; the given one stays as it is.

    Args:
        decoder: as `load_tiny` gives it: `net.encoder` and `net.decoder`, the latter a sequence of layers.
        crop_of: training crop of a number, uint8 (S, S, 3), S = `settings.size_px`.
        settings: see `AdversarySettings`.
    """
    net = copy.deepcopy(decoder.net)
    layers = [layer for layer in net.decoder if any(True for _ in layer.parameters())]
    net.requires_grad_(False)
    for layer in layers[-settings.last_layers :]:
        layer.requires_grad_(True)
    moving = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(moving, settings.learning_rate)
    count = settings.crops_per_step
    probe = _pixels([crop_of(-1 - number) for number in range(4 * count)])
    before = _loss_of(net, probe)
    for step in track(range(settings.steps), "against the spectrum"):
        wanted = _pixels([crop_of(step * count + i) for i in range(count)])
        got = net(wanted)
        loss = spectral_loss(got, wanted) + settings.pixel_weight * (got - wanted).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Adversary(Decoder(net, decoder.stride), before, _loss_of(net, probe))


def _pixels(crops: Sequence[Pixels]) -> Any:
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div(255.0)


def _loss_of(net: Any, pixels: Any) -> float:
    with torch.inference_mode():
        return float(spectral_loss(net(pixels), pixels).item())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the fine-tuned decoder half, to be used with the same encoder file."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.adversarial")
    parser.add_argument("data", type=Path, help="photographs and manifest.jsonl")
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--decoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help=".safetensors file of the new decoder")
    parser.add_argument("--steps", type=int, default=AdversarySettings().steps)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    settings = AdversarySettings(steps=options.steps, seed=options.seed)
    torch.set_num_threads(1)
    crop_of = crops_of(read_manifest(options.data), options.seed, settings.size_px)
    found = against_spectrum(load_tiny(options.encoder, options.decoder), crop_of, settings)
    write_with_text(options.out, found.decoder.net.decoder.state_dict(), {"settings": settings.model_dump_json()})
    sys.stdout.write(f"spectral loss {found.before:.3f} -> {found.after:.3f}\n")


if __name__ == "__main__":
    main()
