"""A directory of labelled images and its `manifest.jsonl`, read for training."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.detection.classifier.preprocess import Pixels


@dataclass(frozen=True, slots=True)
class Labelled:
    """One line of the manifest. `source` is the collection it came from: splits never cut through one.

    `generator` and the decoder `family` are empty for photographs and where the manifest is silent; `packaged`
    images come from a package of workflow templates or sample pictures, mostly as web thumbnails.
    """

    path: Path
    sha256: str
    synthetic: bool
    source: str
    lora: bool
    generator: str = ""
    family: str = ""
    packaged: bool = False


def read_manifest(data: Path) -> list[Labelled]:
    """Rows of `manifest.jsonl` with label real or ai: JSON objects with path, sha256, label, source, lora.

    Raises:
        ValueError: a line that is not such an object, with its number.
    """
    rows: list[Labelled] = []
    with (data / "manifest.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if row["label"] in {"real", "ai"}:
                    rows.append(_labelled(data, row))
            except (json.JSONDecodeError, KeyError) as error:
                raise ValueError(f"manifest.jsonl line {number}: {error!r}") from error
    return rows


def read_pixels(row: Labelled) -> Pixels:
    """Decoded uint8 (H, W, 3), after a check of the file's digest.

    Raises:
        ValueError: the file is not the one that the manifest names.
    """
    data = row.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise ValueError(f"{row.path}: sha256 differs from manifest.jsonl; fetch the data again")
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def source_folds(rows: Sequence[Labelled], folds: int) -> list[int]:
    """A fold for each row; all images of a source share it, and each class is spread evenly.

    Largest source first into the fold that holds the fewest images of that class; ties: lower number.
    """
    fold_of: dict[tuple[bool, str], int] = {}
    for label in (False, True):
        counts: dict[str, int] = {}
        for row in rows:
            if row.synthetic is label:
                counts[row.source] = counts.get(row.source, 0) + 1
        filled = [0] * folds
        for source, count in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])):
            fold = filled.index(min(filled))
            filled[fold] += count
            fold_of[label, source] = fold
    return [fold_of[row.synthetic, row.source] for row in rows]


def _labelled(data: Path, row: dict[str, str | None]) -> Labelled:
    return Labelled(
        path=data / str(row["path"]),
        sha256=str(row["sha256"]),
        synthetic=row["label"] == "ai",
        source=str(row["source"]),
        lora=row["lora"] == "yes",
        generator=str(row.get("generator") or ""),
        family=str(row.get("decoder_family") or ""),
        packaged="decoder_family" in row,
    )
