"""Photographs made hard without a generative model: shown, drawn over, retouched, printed, shrunk. They stay real."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from pipeline.evaluation.robustness import drawing
from pipeline.evaluation.robustness.degradations import rescaled
from pipeline.evaluation.robustness.transform import Repixel, Variant, as_pixels
from pipeline.media.encode import Pixels, resize

_Field: TypeAlias = npt.NDArray[np.float32]


def screenshot(rgb: Pixels, random: np.random.Generator) -> Pixels:
    """The photograph in a drawn window with text, (800, 1280, 3)."""
    return drawing.interface(rgb, random)


def drawn_illustration(_rgb: Pixels, random: np.random.Generator) -> Pixels:
    """A drawing by code in flat colours, (768, 768, 3); nothing of the photograph is in it."""
    return drawing.illustration(random)


def posterised(rgb: Pixels, random: np.random.Generator) -> Pixels:
    """The photograph as a drawing: smoothed, cut to 5-8 levels a channel, its edges inked."""
    smooth = cv2.bilateralFilter(np.ascontiguousarray(rgb), 9, 60, 9)
    step = 256 // int(random.integers(5, 9))
    flat = as_pixels((smooth // step).astype(np.float32) * step + step / 2)
    edges = cv2.dilate(cv2.Canny(cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY), 60, 150), np.ones((2, 2), np.uint8))
    return np.where(edges[..., None] > 0, np.uint8(20), flat)


def retouched(rgb: Pixels, random: np.random.Generator) -> Pixels:
    """What a photo editor does by hand: spots healed, one region smoothed, another lightened, more contrast."""
    healed = _heal_spots(rgb, random)
    blurred = np.asarray(Image.fromarray(healed).filter(ImageFilter.GaussianBlur(2.5)), np.float32)
    mixed = _blend(healed.astype(np.float32), blurred, _soft_ellipse(rgb, random))
    gamma = np.full_like(mixed, random.uniform(0.6, 0.9))
    lightened = _blend(mixed, 255 * np.power(mixed / 255, gamma), _soft_ellipse(rgb, random))
    contrast = random.uniform(1.05, 1.3)
    return as_pixels((lightened - 128) * contrast + 128)


def document(rgb: Pixels, random: np.random.Generator) -> Pixels:
    """A page of text as a scanner sees it, every other one with the photograph as a figure, (1100, 850, 3)."""
    sheet = drawing.page(rgb if random.random() < 0.5 else None, random)
    height, width = sheet.shape[:2]
    turned = Image.fromarray(sheet).rotate(
        random.uniform(-1.2, 1.2), Image.Resampling.BICUBIC, fillcolor=(245, 244, 240)
    )
    shade = np.linspace(random.uniform(0.86, 0.97), 1.0, width, dtype=np.float32)[None, :, None]
    paper = np.asarray(turned.filter(ImageFilter.GaussianBlur(0.6)), np.float32) * shade * 0.96
    return as_pixels(paper + random.normal(0, 3.5, (height, width, 1)))


def avatar(rgb: Pixels, _random: np.random.Generator, side_px: int = 96) -> Pixels:
    """The central square at avatar size."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(np.ascontiguousarray(rgb[top : top + side, left : left + side]), side_px, side_px, "lanczos")


def thumbnail(rgb: Pixels, random: np.random.Generator, long_side_px: int) -> Pixels:
    """At most this on the long side; smaller images stay as they are."""
    return rescaled(rgb, random, min(1.0, long_side_px / max(rgb.shape[:2])), "lanczos")


HARD_REALS: tuple[Variant, ...] = (
    Variant("hard screenshot png", Repixel("screenshot", screenshot)),
    Variant("hard screenshot jpeg q80", Repixel("screenshot", screenshot, "jpeg", 80)),
    Variant("hard illustration drawn", Repixel("illustration", drawn_illustration)),
    Variant("hard illustration posterised", Repixel("posterised", posterised, "jpeg", 90)),
    Variant("hard retouched", Repixel("retouched", retouched, "jpeg", 92)),
    Variant("hard document", Repixel("document", document, "jpeg", 85)),
    Variant(
        "hard thumbnail 400 px webp q80", Repixel("thumbnail400", partial(thumbnail, long_side_px=400), "webp", 80)
    ),
    Variant(
        "hard thumbnail 160 px jpeg q80", Repixel("thumbnail160", partial(thumbnail, long_side_px=160), "jpeg", 80)
    ),
    Variant("hard avatar 96 px jpeg q80", Repixel("avatar", avatar, "jpeg", 80)),
)


def _heal_spots(rgb: Pixels, random: np.random.Generator) -> Pixels:
    """Three to eight spots filled from their borders (Telea 2004)."""
    height, width = rgb.shape[:2]
    radius = max(2, min(height, width) // 60)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(int(random.integers(3, 9))):
        centre = (int(random.integers(0, width)), int(random.integers(0, height)))
        cv2.circle(mask, centre, int(random.integers(radius, 2 * radius + 1)), 255, -1)
    healed: Pixels = np.asarray(cv2.inpaint(np.ascontiguousarray(rgb), mask, 3, cv2.INPAINT_TELEA))
    return healed


def _soft_ellipse(rgb: Pixels, random: np.random.Generator) -> _Field:
    """A feathered region of a quarter to a half of each side, float32 (H, W, 1) in 0..1."""
    height, width = rgb.shape[:2]
    half_x, half_y = (max(4, round(side * random.uniform(0.12, 0.25))) for side in (width, height))
    x, y = int(random.integers(0, width)), int(random.integers(0, height))
    region = Image.new("L", (width, height), 0)
    ImageDraw.Draw(region).ellipse((x - half_x, y - half_y, x + half_x, y + half_y), fill=255)
    feathered = region.filter(ImageFilter.GaussianBlur(min(half_x, half_y) / 3))
    return np.asarray(feathered, np.float32)[..., None] / np.float32(255)


def _blend(
    below: _Field,
    above: _Field,
    weight: _Field,
) -> _Field:
    return below * (1 - weight) + above * weight
