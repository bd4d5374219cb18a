"""Which images are trained on together: folds that hold out real sources and decoder families, and the final split.

    python -m pipeline.training.splits DATA [DATA ...] --out FILE     writes the split manifest
    python -m pipeline.training.splits DATA [DATA ...] --check FILE   fails when the data differ from it

Every fold holds out whole real sources and whole decoder families; a model tested on a fold has seen neither, nor
any other image of a repository that appears in it. `final` images are scored once a bundle, and never chosen on.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.training.dataset import Labelled, read_manifest

FINAL = -1
FINAL_SHARE = 0.3
"""Share of packaged generators and packaged sources of photographs that only the final split holds."""

SALT = "2026-11b"
"""Which of them is drawn by the digest of this and their names; another salt is another draw."""

OPENED_GENERATORS = frozenset(
    {
        "BRIA", "FLUX", "FLUX.2 Klein", "FireRed Image Edit 1.1", "GPT Image 2", "HiDream-I1", "HiDream-O1",
        "Kling 3.0", "Lens", "Magnific", "Nano Banana 2", "OmniGen", "PixelDiT", "Qwen-Image", "Qwen-Image 2512",
        "Reve", "Z-Image",
    }
)  # fmt: skip
"""In the final split of 2026-11, which has been looked at: they are trained on now."""

OPENED_SOURCES = frozenset(
    {
        "face_recognition", "imgaug", "lomiri-wallpapers", "mate-backgrounds", "plasma-workspace-wallpapers",
        "scikit-image", "scikit-learn",
    }
)  # fmt: skip
"""Packages whose photographs were in the final split of 2026-11; also as part of a longer package name."""

SEEDS = (0, 1, 2)
METRIC = "macro mean over folds of AUC-ROC, equal codec; ties by FNR at FPR 1 %"

REAL_FOLDS = {
    "EliSchwartz/imagenet-sample-images": 0,
    "BIDS/BSDS500": 1,
    "alexeygrigorev/clothing-dataset-small": 2,
    "drewnoakes/metadata-extractor-images": 3,
    "google/dreambooth": 3,
    "MohamedBakrAli/Kodak-Lossless-True-Color-Image-Suite": 3,
}
FAMILY_FOLDS = {"SDXL": 0, "SD1/2": 1, "FLUX": 2}
"""Every other family, SD3 among them, is in the last fold."""

LAST_FOLD = 3
FOLDS = LAST_FOLD + 1

_FAMILIES = (
    ("SD3", ("sd3", "stable diffusion 3", "sd 3")),
    ("SDXL", ("sdxl", "kolors", "sd xl")),
    ("FLUX", ("flux", "chroma", "kontext")),
    ("SD1/2", ("sd1", "sd2", "stable diffusion (version not stated)", "sd 1", "sd 2")),
)


class SplitRow(BaseModel):
    """One image: `unit` is what stays together (real source or decoder family); `fold` -1 is the final split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    synthetic: bool
    source: str
    unit: str
    fold: int


class SplitManifest(BaseModel):
    """The rules, and where they put every image: to be fixed before a score is seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    seeds: tuple[int, ...]
    rows: tuple[SplitRow, ...]


def decoder_family(generator: str) -> str:
    """SD1/2, SDXL (with Kolors, said to share its decoder), FLUX, SD3 or the generator's own name."""
    name = generator.lower()
    return next((family for family, marks in _FAMILIES if any(mark in name for mark in marks)), generator)


def fold_of_family(family: str) -> int:
    """The fold that holds out a decoder family."""
    return FAMILY_FOLDS.get(family, LAST_FOLD)


def absent_for(rows: Sequence[SplitRow], fold: int | None) -> set[str]:
    """Digests of the final split and, with a fold, of it and of every source that appears in it."""
    sources = {row.source for row in rows if row.fold == fold}
    return {row.sha256 for row in rows if row.fold == FINAL or row.source in sources}


def assign(rows: Sequence[Labelled]) -> list[SplitRow]:
    """The split of every image, in order of digest.

    Raises:
        ValueError: a source of photographs without a fold.
    """
    split = [_row(row) for row in rows]
    return sorted(split, key=lambda row: row.sha256)


def build(rows: Sequence[Labelled]) -> SplitManifest:
    """The split manifest of these images."""
    return SplitManifest(metric=METRIC, seeds=SEEDS, rows=tuple(assign(rows)))


def _row(row: Labelled) -> SplitRow:
    if row.synthetic:
        unit = row.family or decoder_family(row.generator)
        fold = fold_of_family(unit)
        if row.packaged and row.generator not in OPENED_GENERATORS and _drawn(row.generator):
            fold = FINAL
    else:
        unit = row.source
        fold = _fold_of_photographs(row)
    return SplitRow(sha256=row.sha256, synthetic=row.synthetic, source=row.source, unit=unit, fold=fold)


def _fold_of_photographs(row: Labelled) -> int:
    """A packaged source is drawn into the final split, or into the fold that its name's digest gives."""
    if row.packaged:
        opened = any(name in row.source for name in OPENED_SOURCES)
        return FINAL if not opened and _drawn(row.source) else _number(row.source) % FOLDS
    if row.source not in REAL_FOLDS:
        raise ValueError(f"{row.source}: no fold; add the source to REAL_FOLDS")
    return REAL_FOLDS[row.source]


def _drawn(name: str) -> bool:
    return _number(f"{SALT} {name}") / 2**64 < FINAL_SHARE


def _number(name: str) -> int:
    """Evenly over 0 ... 2^64 - 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write or check the split manifest; exits with status 1 when the data are not those of the file."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.splits")
    parser.add_argument("data", type=Path, nargs="+")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path)
    target.add_argument("--check", type=Path)
    options = parser.parse_args(arguments)
    manifest = build([row for data in options.data for row in read_manifest(data)])
    text = manifest.model_dump_json(indent=1) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    elif options.check.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{options.check}: the images or the rules differ from it; write it anew with --out")
    sys.stdout.write(f"{len(manifest.rows)} images\n")


if __name__ == "__main__":
    main()
