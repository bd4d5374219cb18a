"""Features of photographs' crops beside the same crops through a decoder: detection without a generated image.

python -m pipeline.training.probe.pair_features DATA --decoders DIR [--upsamplers DIR] --cache DIR --pairs 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rich.progress import track

from pipeline.media.encode import Pixels
from pipeline.training.backbone import required
from pipeline.training.dataset import read_manifest
from pipeline.training.decoders import load_tiny_directory
from pipeline.training.degrade import STAGES, DegradeSettings
from pipeline.training.pairs import PairSampler, PairSettings, Reconstruct
from pipeline.training.probe.embed import SPECTRAL, embedder_of
from pipeline.training.probe.pair_store import PairFeatures
from pipeline.training.upsamplers import load_upsamplers

DECODER_UNITS = {"taesd": "SD1/2", "taesdxl": "SDXL", "taesd3": "SD3", "taef1": "FLUX", "taef2": "FLUX.2"}
"""Tiny decoder -> the decoder family whose latents it reads; another family names itself."""

MILD = DegradeSettings(rescale=(0.6, 1.4), rescaled_share=0.4, saves=(0, 2), quality=(60, 98), webp_share=0.2)
SAVED_ONCE = {"q95": DegradeSettings(rescaled_share=0.0, saves=(1, 1), quality=(95, 95), webp_share=0.0)}
DEGRADATIONS: dict[str, DegradeSettings] = {
    "mild": MILD,
    **SAVED_ONCE,
    **{str(name): stage for name, stage in STAGES.items()},
}


Embed: TypeAlias = Callable[[Pixels], npt.NDArray[np.floating[Any]]]
"""uint8 (N, S, S, 3) to features (N, D)."""


def compute(sampler: PairSampler, count: int, embedders: Mapping[str, Embed]) -> dict[str, PairFeatures]:
    """Embed pairs 0 ... count - 1 by every backbone."""
    pairs = list(track(sampler.pairs(0, count), "pairs", total=count))
    units = np.array([DECODER_UNITS.get(pair.family, pair.family) for pair in pairs])
    sources = np.array([pair.source for pair in pairs])
    found = {}
    for name, embed in embedders.items():
        sides = [
            embed(np.stack([p.real, p.synthetic, p.real if p.matched is None else p.matched]))
            for p in track(pairs, name)
        ]
        real, synthetic, matched = (np.stack([side[i] for side in sides]) for i in range(3))
        found[name] = PairFeatures(real, synthetic, matched, units, sources)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.probe.pair_features")
    parser.add_argument("data", type=Path)
    parser.add_argument("--decoders", type=Path, required=True, help="directory of tiny autoencoders")
    parser.add_argument("--upsamplers", type=Path, help="directory written by pipeline.training.upsamplers")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", SPECTRAL])
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--size-px", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--degrade", choices=sorted(DEGRADATIONS), default="mild")
    parser.add_argument("--without-history-control", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="directory: one file a backbone")
    options = parser.parse_args(arguments)
    required("torch").set_num_threads(1)
    families: Mapping[str, Reconstruct] = {
        **load_tiny_directory(options.decoders),
        **(load_upsamplers(options.upsamplers) if options.upsamplers else {}),
    }
    settings = PairSettings(
        size_px=options.size_px,
        seed=options.seed,
        degrade=DEGRADATIONS[options.degrade],
        shrink_jpegs=not options.without_history_control,
        matched_negatives=not options.without_history_control,
    )
    photographs = [row for row in read_manifest(options.data) if not row.synthetic]
    sampler = PairSampler(photographs, families, settings)
    embedders = {name: embedder_of(name, options.cache) for name in options.backbones}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, features in compute(sampler, options.pairs, embedders).items():
        np.savez(options.out / f"{name}.npz", **{f: getattr(features, f) for f in PairFeatures.__dataclass_fields__})


if __name__ == "__main__":
    main()
