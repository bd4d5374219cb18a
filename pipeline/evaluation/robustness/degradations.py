"""The degradations of GenImage (Zhu et al. 2023), and five ways an image is delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from pipeline.evaluation.robustness.transform import Repixel, Variant, unchanged
from pipeline.evaluation.score_row import ScoreRow
from pipeline.media.encode import Filter, Pixels, rescale, resize


def shrink_to(rgb: Pixels, _random: np.random.Generator, short_side_px: int) -> Pixels:
    """To this shorter side, bicubic, and left at that size; a smaller image stays as it is."""
    height, width = rgb.shape[:2]
    factor = short_side_px / min(height, width)
    return rgb if factor >= 1 else resize(rgb, round(height * factor), round(width * factor))


def gaussian_blur(rgb: Pixels, _random: np.random.Generator, sigma_px: float) -> Pixels:
    """Gaussian blur of this standard deviation (Pillow's three box passes)."""
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma_px)))


def rescaled(rgb: Pixels, _random: np.random.Generator, factor: float, kind: Filter = "bicubic") -> Pixels:
    """By a factor on both sides."""
    return rescale(rgb, factor, kind)


GENIMAGE: tuple[Variant, ...] = (
    Variant("LR112", Repixel("lr112", partial(shrink_to, short_side_px=112))),
    Variant("LR64", Repixel("lr64", partial(shrink_to, short_side_px=64))),
    Variant("JPEG65", Repixel("jpeg65", unchanged, "jpeg", 65)),
    Variant("JPEG30", Repixel("jpeg30", unchanged, "jpeg", 30)),
    Variant("blur 3", Repixel("blur3", partial(gaussian_blur, sigma_px=3.0))),
    Variant("blur 5", Repixel("blur5", partial(gaussian_blur, sigma_px=5.0))),
)

DELIVERY: tuple[Variant, ...] = (
    Variant("delivery jpeg q95", Repixel("d95", unchanged, "jpeg", 95)),
    Variant("delivery jpeg q75", Repixel("d75", unchanged, "jpeg", 75)),
    Variant("delivery webp q80", Repixel("dw80", unchanged, "webp", 80)),
    Variant("delivery x0.75 jpeg q85", Repixel("d075", partial(rescaled, factor=0.75), "jpeg", 85)),
    Variant("delivery x0.5 webp q75", Repixel("d050", partial(rescaled, factor=0.5), "webp", 75)),
)


@dataclass(frozen=True, slots=True)
class Flips:
    """`images` had a verdict on the original and on a delivery; `flipped` of them changed it at least once."""

    images: int
    flipped: int
    by_variant: dict[str, int]


class _Verdict(NamedTuple):
    original: bool | None
    delivered: dict[str, bool]


def verdict_flips(rows: Iterable[ScoreRow], flagged: Callable[[ScoreRow], bool | None], original: str) -> Flips:
    """How often a verdict depends on delivery alone.

    Args:
        rows: score rows of the `original` variant and of the deliveries; other variants do no harm.
        flagged: the verdict on a row; None where there is none, which is no flip.
        original: the variant that the deliveries are compared with, such as `as delivered`.
    """
    verdicts: dict[str, _Verdict] = {}
    names = {variant.name for variant in DELIVERY}
    for row in rows:
        verdict = verdicts.setdefault(row.key, _Verdict(None, {}))
        said = flagged(row)
        if row.variant == original:
            verdicts[row.key] = verdict._replace(original=said)
        elif said is not None and row.variant in names:
            verdict.delivered[row.variant] = said
    by_variant = {variant.name: 0 for variant in DELIVERY}
    images = flipped = 0
    for verdict in verdicts.values():
        if verdict.original is None or not verdict.delivered:
            continue
        changed = [name for name, said in verdict.delivered.items() if said is not verdict.original]
        images += 1
        flipped += bool(changed)
        for name in changed:
            by_variant[name] += 1
    return Flips(images, flipped, by_variant)
