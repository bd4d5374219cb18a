"""Maps of labelled images and of decoder pairs, computed once and kept.

    python -m pipeline.training.artifact_examples DATA [DATA ...] --split FILE --cache DIR
    python -m pipeline.training.artifact_examples DATA --split FILE --cache DIR --decoders DIR --pairs 200

May be stopped and started again; `--part I --parts N` shares the work out. Images of the final split, and packaged
ones, which are web thumbnails, are left out. Pairs are of photographs and decoders; the JPEG-history control is on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track

from pipeline.detection.spectral.kernel import Float32
from pipeline.media.decode import bt601_luma
from pipeline.media.encode import Pixels
from pipeline.training.artifact_maps import maps
from pipeline.training.backbone import required
from pipeline.training.dataset import Labelled, read_manifest, read_pixels
from pipeline.training.decoders import load_tiny_directory
from pipeline.training.pairs import PairSampler, PairSettings
from pipeline.training.probe.pair_features import DECODER_UNITS, MILD
from pipeline.training.probe.views import lattice_crops, rng_of, saved
from pipeline.training.splits import FINAL, SplitManifest

CROPS = 4
PAIR_PX = 128
"""Small enough that a JPEG photograph of 500 px still gives a crop after it was shrunk off its grid."""


@dataclass(frozen=True, slots=True)
class PairMaps:
    """Of P pairs: float16 (P, 3 sides, *SHAPE), the sides being real, softened real and synthetic.

    `unit` (P,) is the decoder family, `source` (P,) the photograph's collection.
    """

    sides: npt.NDArray[np.float16]
    unit: npt.NDArray[np.str_]
    source: npt.NDArray[np.str_]


def crop_maps(crops: Pixels) -> Float32:
    """Maps of uint8 (N, S, S, 3), float32 (N, *SHAPE)."""
    return np.stack([maps(bt601_luma(crop)) for crop in crops])


QUALITIES: Mapping[str, Callable[[str], int | None]] = {
    "q90": lambda _: 90,
    "high": lambda sha256: int(rng_of(sha256, "high").integers(80, 97)),
    "png": lambda _: None,
}
"""View -> JPEG quality of an image, None for lossless; as the probe's views, on four native 256 px crops, not nine."""


def image_path(cache: Path, sha256: str) -> Path:
    """Where the maps of an image lie: float16 (views, crops, *SHAPE), views in the order of `QUALITIES`."""
    return cache / "images" / f"{sha256}.npy"


def fill_images(cache: Path, rows: Sequence[Labelled]) -> None:
    """Compute what is missing."""
    (cache / "images").mkdir(parents=True, exist_ok=True)
    for row in track(rows, "images"):
        path = image_path(cache, row.sha256)
        if path.exists():
            continue
        crops = lattice_crops(read_pixels(row), rng_of(row.sha256, "place"), count=CROPS)
        qualities = [quality(row.sha256) for quality in QUALITIES.values()]
        views = [crops if quality is None else saved(crops, "jpeg", quality) for quality in qualities]
        partial = path.with_suffix(".partial.npy")
        np.save(partial, np.stack([crop_maps(view) for view in views]).astype(np.float16))
        partial.rename(path)


def load_images(cache: Path, rows: Sequence[Labelled]) -> dict[str, npt.NDArray[np.float16]]:
    """View -> float16 (M, crops, *SHAPE).

    Raises:
        FileNotFoundError: not computed yet; run this module first.
    """
    found = np.stack([np.load(image_path(cache, row.sha256)) for row in rows], axis=1)
    return dict(zip(QUALITIES, found, strict=True))


def fill_pairs(cache: Path, sampler: PairSampler, numbers: Sequence[int]) -> None:
    """Compute what is missing of these pairs."""
    (cache / "pairs").mkdir(parents=True, exist_ok=True)
    for number in track(numbers, "pairs"):
        path = cache / "pairs" / f"{number:05d}.npz"
        if path.exists():
            continue
        pair = sampler.pair(number)
        if pair.matched is None:
            raise ValueError("settings: matched_negatives must be on, they are trained on as real")
        sides = crop_maps(np.stack([pair.real, pair.matched, pair.synthetic])).astype(np.float16)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, sides=sides, unit=DECODER_UNITS.get(pair.family, pair.family), source=pair.source)
        partial.rename(path)


def load_pairs(cache: Path, count: int) -> PairMaps:
    """Pairs 0 ... count - 1.

    Raises:
        FileNotFoundError: not computed yet; run this module first.
    """
    sides, units, sources = [], [], []
    for number in range(count):
        with np.load(cache / "pairs" / f"{number:05d}.npz", allow_pickle=False) as archive:
            sides.append(archive["sides"])
            units.append(str(archive["unit"]))
            sources.append(str(archive["source"]))
    return PairMaps(np.stack(sides), np.array(units), np.array(sources))


def usable(rows: Sequence[Labelled], split: Path) -> list[Labelled]:
    """Rows in order of digest, without the final split and without packaged images."""
    manifest = SplitManifest.model_validate_json(split.read_text(encoding="utf-8"))
    kept = {row.sha256 for row in manifest.rows if row.fold != FINAL}
    return sorted((row for row in rows if row.sha256 in kept and not row.packaged), key=lambda row: row.sha256)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.artifact_examples")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--decoders", type=Path, help="directory of tiny autoencoders; makes pairs")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    options = parser.parse_args(arguments)
    rows = usable([row for data in options.data for row in read_manifest(data)], options.split)
    if options.decoders is None:
        fill_images(options.cache, rows[options.part :: options.parts])
        return
    required("torch").set_num_threads(1)
    settings = PairSettings(size_px=PAIR_PX, seed=options.seed, degrade=MILD)
    sampler = PairSampler(rows, load_tiny_directory(options.decoders), settings)
    fill_pairs(options.cache, sampler, range(options.part, options.pairs, options.parts))


if __name__ == "__main__":
    main()
