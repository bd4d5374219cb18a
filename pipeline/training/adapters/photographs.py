"""Photographs of a dataset as squares of one size, and toy prompts for them by layout and colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.evaluation.layouts import open_dataset
from pipeline.evaluation.layouts.base import DatasetError
from pipeline.evaluation.layouts.read import read_bytes
from pipeline.media.encode import Pixels, decode, resize

THUMBNAIL_PX = 4
"""Side of the means that toy prompts are clusters of."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A square of a real image, uint8 (S, S, 3), and the source it came from."""

    key: str
    source: str
    pixels: Pixels


def read_photographs(root: Path, size_px: int) -> list[Photograph]:
    """The dataset's real images: the middle square of each, resized.

    Photographs smaller than `size_px` are left out, never enlarged.

    Raises:
        DatasetError: no layout that is known, or no real image of that size.
    """
    found: list[Photograph] = []
    for sample in open_dataset(root).samples():
        if sample.synthetic:
            continue
        rgb = decode(read_bytes(sample))
        if min(rgb.shape[:2]) >= size_px:
            found.append(Photograph(sample.key, sample.source, resize(middle_square(rgb), size_px, size_px)))
    if not found:
        raise DatasetError(f"{root}: no real image of {size_px} px or more; give a dataset with photographs")
    return found


def with_prompts(root: Path, size_px: int, prompt_of: Mapping[str, int]) -> tuple[list[Photograph], list[int]]:
    """The photographs that have a prompt, and its number.

    Raises:
        DatasetError: none has one.
    """
    chosen = [photo for photo in read_photographs(root, size_px) if photo.key in prompt_of]
    if not chosen:
        raise DatasetError(f"{root}: none of its photographs has a prompt; give those that the prompts name")
    return chosen, [prompt_of[photo.key] for photo in chosen]


def middle_square(rgb: Pixels) -> Pixels:
    """The largest centred square of uint8 (H, W, 3)."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]


def layout_prompts(photographs: Sequence[Photograph], prompts: int, seed: int) -> list[int]:
    """A prompt number for each photograph: k-means over 4 x 4 block means, so that a prompt fixes the layout."""
    from scipy.cluster.vq import kmeans2  # noqa: PLC0415 - half a second that only a toy model needs

    side = photographs[0].pixels.shape[0] // THUMBNAIL_PX
    blocks = np.stack(
        [photo.pixels.reshape(THUMBNAIL_PX, side, THUMBNAIL_PX, side, 3).mean((1, 3)).ravel() for photo in photographs]
    )
    _, labels = kmeans2(blocks, prompts, minit="++", seed=seed)
    return [int(label) for label in labels]


def by_source(photographs: Sequence[Photograph]) -> dict[str, list[int]]:
    """Positions of each source's photographs, the largest source first."""
    positions: dict[str, list[int]] = {}
    for number, photo in enumerate(photographs):
        positions.setdefault(photo.source, []).append(number)
    return dict(sorted(positions.items(), key=lambda item: (-len(item[1]), item[0])))
