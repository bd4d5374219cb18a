"""Whether a verdict rests on what was measured: panels and tables are swapped between images, and the shift is read.

A model that looks at panel and table follows them to the image that they belong to; one that judges by the picture
alone, or by the prompt, does not move. Reported beside it: how saturated its probabilities are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from pipeline.detection.calibration import Floats
from pipeline.detection.mllm.backends.base import VerifyRequest

AskAll: TypeAlias = Callable[[Sequence[VerifyRequest]], Sequence[float | None]]
"""Raw P(synthetic) of each verdict, in order; None without one, or when it is undetermined."""

SATURATED = 0.01
"""Nearer to 0 or 1 than this a probability says nothing more than its side."""


@dataclass(frozen=True, slots=True)
class Swap:
    """What one kind of swap did, over `pairs` of images of different verdicts.

    `follows`: least-squares slope of the shift of P(synthetic) on the difference between the donor's own P and the
    image's: 0 for a verdict that ignores what was swapped, 1 for one that goes all the way with it. `mean_shift`:
    mean absolute shift. `agrees_with_image`, `agrees_with_donor`: shares whose side of 0.5 is still that of the image,
    or that of the image from which panel or table came.
    """

    name: str
    pairs: int
    follows: float
    mean_shift: float
    agrees_with_image: float
    agrees_with_donor: float


@dataclass(frozen=True, slots=True)
class Saturation:
    """Of the images' own P(synthetic): how many verdicts, the share within 0.01 of an end, the mean distance to 0.5."""

    verdicts: int
    saturated: float
    mean_distance: float


@dataclass(frozen=True, slots=True)
class Grounding:
    """`silent`: questions, swapped ones included, that gave no probability."""

    swaps: tuple[Swap, ...]
    saturation: Saturation
    silent: int


def with_panel_of(image: VerifyRequest, donor: VerifyRequest) -> VerifyRequest:
    """The image beside another's panel."""
    return replace(image, panel_png=donor.panel_png, panel_sha256=donor.panel_sha256)


def with_table_of(image: VerifyRequest, donor: VerifyRequest) -> VerifyRequest:
    """The image beside another's table."""
    return replace(image, features=donor.features, stratum=donor.stratum)


def with_both_of(image: VerifyRequest, donor: VerifyRequest) -> VerifyRequest:
    """The image beside another's panel and table."""
    return with_table_of(with_panel_of(image, donor), donor)


_SWAPS: dict[str, Callable[[VerifyRequest, VerifyRequest], VerifyRequest]] = {
    "panel": with_panel_of,
    "table": with_table_of,
    "panel and table": with_both_of,
}


def measure_grounding(real: Sequence[VerifyRequest], synthetic: Sequence[VerifyRequest], ask_all: AskAll) -> Grounding:
    """Ask about every image as it is, then with panel, table and both of an image of the other class.

    Each image of the larger class gets a donor of the smaller one, in turn, and the other way round; pairs whose own
    verdicts are equal show nothing and do not count.

    Args:
        real: photographs' requests.
        synthetic: generated images' requests.
        ask_all: the model; called 4 times with as many requests as there are images.

    Raises:
        ValueError: a class without images.
    """
    if not real or not synthetic:
        raise ValueError("grounding needs images of both classes, whose panels can be swapped")
    requests = [*real, *synthetic]
    own = list(ask_all(requests))
    first = len(real)
    donors = [first + i % len(synthetic) for i in range(first)] + [i % first for i in range(len(synthetic))]
    swaps, silent = [], own.count(None)
    for name, swapped in _SWAPS.items():
        said = list(ask_all([swapped(requests[i], requests[donor]) for i, donor in enumerate(donors)]))
        silent += said.count(None)
        swaps.append(_swap(name, own, [own[donor] for donor in donors], said))
    return Grounding(tuple(swaps), _saturation(own), silent)


def _swap(name: str, own: Sequence[float | None], donors: Sequence[float | None], said: Sequence[float | None]) -> Swap:
    rows = [(a, b, c) for a, b, c in zip(own, donors, said, strict=True) if None not in (a, b, c) and a != b]
    if not rows:
        return Swap(name, 0, *[float("nan")] * 4)
    image, donor, now = np.array(rows, np.float64).T
    shift, gap = now - image, donor - image
    return Swap(
        name,
        pairs=len(rows),
        follows=float(shift @ gap / (gap @ gap)),
        mean_shift=float(np.abs(shift).mean()),
        agrees_with_image=_same_side(now, image),
        agrees_with_donor=_same_side(now, donor),
    )


def _same_side(a: Floats, b: Floats) -> float:
    return float(np.mean((a >= 0.5) == (b >= 0.5)))


def _saturation(own: Sequence[float | None]) -> Saturation:
    p = np.array([value for value in own if value is not None], np.float64)
    if not p.size:
        return Saturation(0, float("nan"), float("nan"))
    near = np.minimum(p, 1.0 - p) < SATURATED
    return Saturation(int(p.size), float(near.mean()), float(np.abs(p - 0.5).mean()))
