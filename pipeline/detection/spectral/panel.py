"""The picture that the MLLM and a reviewer see beside the image.

Top left the log spectrum with the harmonic points marked, top right where in the image the residual energy
lies, below the radial curve against photographs of the stratum and the numbers. The same input gives the same
bytes.
"""

from __future__ import annotations

import io
import textwrap
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.detection.spectral import features, kernel, residuals, strata
from pipeline.detection.spectral.analyser import SpectralAnalysis
from pipeline.detection.spectral.kernel import Float64, Pixels

if TYPE_CHECKING:
    from pipeline.media.decode import DecodedImage

WIDTH_PX, HEIGHT_PX = 1024, 960
MAP_PX = 400
SPECTRUM_XY = (60, 76)
RESIDUAL_XY = (552, 76)
CURVE_BOX = (76, 588, 560, 892)
TEXT_XY = (596, 556)
TOP_FEATURES = 9

Colour = tuple[int, int, int]
_BLACK: Colour = (20, 20, 20)
_GREY: Colour = (105, 105, 105)
_RULE: Colour = (205, 205, 205)
_EIGHTH: Colour = (0, 255, 255)
_MASKED: Colour = (125, 125, 150)
_SIXTEENTH: Colour = (150, 220, 150)
_OUTER_BAND: Colour = (205, 220, 240)
_INNER_BAND: Colour = (160, 188, 226)
_MEDIAN: Colour = (40, 80, 150)
_CURVE: Colour = (200, 30, 30)


def render_panel(image: DecodedImage, analysis: SpectralAnalysis) -> bytes:
    """PNG of 1024 x 960 px for an analysis of this image."""
    canvas = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    area = kernel.analysed_area(image.luma)
    height, width = image.luma.shape
    _text(draw, (20, 12), f"Spectral panel: {area.shape[1]} x {area.shape[0]} px analysed of {width} x {height} px", 20)
    if analysis.measurement is None:
        _text(draw, (60, 120), "Too small for a spectrum.", 18)
    else:
        _spectrum(canvas, draw, kernel.power_spectrum(area), strata.masks_jpeg_grid(analysis.stratum))
        _residual(canvas, draw, area)
    if analysis.measurement is not None and analysis.not_applicable is None:
        _radial_curve(draw, analysis.measurement.radial, analysis.radial_band)
    _numbers(draw, analysis)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _spectrum(canvas: Image.Image, draw: ImageDraw.ImageDraw, power: Pixels, masked: bool) -> None:
    plane = _pooled(kernel.log_magnitude_plane(power))
    low, high = (float(v) for v in np.percentile(plane, [1.0, 99.8]))
    left, top = SPECTRUM_XY
    _text(draw, (left, top - 28), "Log spectrum, frequency 0 in the centre", 16)
    canvas.paste(Image.fromarray(_inferno(plane, low, high)), SPECTRUM_XY)
    eighth = _MASKED if masked else _EIGHTH
    for order, colour, radius in ((16, _SIXTEENTH, 3), (8, eighth, 6)):
        for m, n in _marked_points(order):
            x, y = left + (n / 16 + 0.5) * MAP_PX, top + (m / 16 + 0.5) * MAP_PX
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour)
    _frequency_ticks(draw)
    _colour_bar(canvas, draw, (left + MAP_PX + 10, top), (f"{low:.1f}", f"{high:.1f}"), "log(1+|F|)")
    key_y = top + MAP_PX + 28
    draw.rectangle((left, key_y, left + MAP_PX, key_y + 22), fill=(60, 30, 80))
    draw.ellipse((left + 9, key_y + 5, left + 21, key_y + 17), outline=eighth)
    note = ": the codec's own grid" if masked else ""
    _text(draw, (left + 28, key_y + 3), f"multiples of 1/8{note}", 13, (255, 255, 255))
    draw.ellipse((left + 325, key_y + 8, left + 331, key_y + 14), outline=_SIXTEENTH)
    _text(draw, (left + 338, key_y + 3), "odd 1/16", 13, (255, 255, 255))


def _marked_points(order: int) -> list[tuple[int, int]]:
    """(m, n) in sixteenths over the full plane: multiples of 1/8, or all the others."""
    span = range(-8, 8)
    return [(m, n) for m in span for n in span if (m, n) != (0, 0) and ((m % 2 or n % 2) != 0) == (order == 16)]


def _frequency_ticks(draw: ImageDraw.ImageDraw) -> None:
    left, top = SPECTRUM_XY
    for f in (-0.5, -0.25, 0.0, 0.25, 0.5):
        position = (f + 0.5) * MAP_PX
        draw.line((left + position, top + MAP_PX, left + position, top + MAP_PX + 5), fill=_BLACK)
        _text(draw, (left + position, top + MAP_PX + 7), f"{f:g}", 13, anchor="ma")
        draw.line((left - 5, top + position, left, top + position), fill=_BLACK)
        _text(draw, (left - 8, top + position), f"{f:g}", 13, anchor="rm")


def _residual(canvas: Image.Image, draw: ImageDraw.ImageDraw, area: Pixels) -> None:
    """Local mean of the cross-difference, on a log scale, over the dimmed image."""
    scale = MAP_PX / max(area.shape)
    size = (max(1, round(area.shape[1] * scale)), max(1, round(area.shape[0] * scale)))
    residual = residuals.cross_difference(area)[:-1, :-1]
    local = cv2.boxFilter(residual, -1, (15, 15), borderType=cv2.BORDER_REFLECT)
    energy = cv2.resize(np.log(local + np.float32(0.1)), size, interpolation=cv2.INTER_AREA)
    grey = cv2.resize(area, size, interpolation=cv2.INTER_AREA)
    low, high = (float(v) for v in np.percentile(energy, [2.0, 99.5]))
    colour = _inferno(energy, low, high)
    strength = 0.35 + 0.5 * np.clip((energy - low) / max(high - low, 1e-6), 0.0, 1.0)[..., None]
    mixed = strength * colour + (1.0 - strength) * 0.6 * grey[..., None]
    left, top = RESIDUAL_XY[0] + (MAP_PX - size[0]) // 2, RESIDUAL_XY[1]
    _text(draw, (RESIDUAL_XY[0], top - 28), "High-frequency residual energy in the analysed area", 16)
    canvas.paste(Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)), (left, top))
    labels = (f"{np.exp(low):.1f}", f"{np.exp(high):.1f}")
    _colour_bar(canvas, draw, (RESIDUAL_XY[0] + MAP_PX + 10, top), labels, "grey levels")


def _radial_curve(draw: ImageDraw.ImageDraw, radial: Float64, band: Float64) -> None:
    left, top, right, bottom = CURVE_BOX
    _text(draw, (left, top - 46), "Radial power against photographs of the stratum", 16)
    _text(draw, (left, top - 22), "natural logarithm, relative to the power at 0.1 cycles per pixel", 13, _GREY)
    shown = features.BIN_CENTRES > 0.015
    everything = np.concatenate([band[:, shown].ravel(), radial[shown]])
    low, high = float(np.floor(everything.min())), float(np.ceil(everything.max()))

    def points(curve: Float64) -> list[tuple[float, float]]:
        xs = left + features.BIN_CENTRES[shown] / 0.5 * (right - left)
        ys = bottom - (curve[shown] - low) / (high - low) * (bottom - top)
        return list(zip(xs.tolist(), ys.tolist(), strict=True))

    draw.polygon(points(band[0]) + points(band[4])[::-1], fill=_OUTER_BAND)
    draw.polygon(points(band[1]) + points(band[3])[::-1], fill=_INNER_BAND)
    _axes(draw, low, high)
    draw.line(points(band[2]), fill=_MEDIAN, width=1)
    draw.line(points(radial), fill=_CURVE, width=3)
    _legend(draw, right - 190, top + 10)


def _axes(draw: ImageDraw.ImageDraw, low: float, high: float) -> None:
    left, top, right, bottom = CURVE_BOX
    for f in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        x = left + f / 0.5 * (right - left)
        draw.line((x, bottom, x, bottom + 5), fill=_BLACK)
        _text(draw, (x, bottom + 7), f"{f:g}", 13, anchor="ma")
    step = max(1.0, float(np.ceil((high - low) / 7)))
    for value in np.arange(np.ceil(low / step) * step, high + 1e-9, step):
        y = bottom - (value - low) / (high - low) * (bottom - top)
        draw.line((left, y, right, y), fill=_RULE)
        draw.line((left - 5, y, left, y), fill=_BLACK)
        _text(draw, (left - 8, y), f"{value:g}", 13, anchor="rm")
    draw.rectangle(CURVE_BOX, outline=_BLACK)
    _text(draw, ((left + right) / 2, bottom + 28), "frequency, cycles per pixel", 14, anchor="ma")


def _legend(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.rectangle((x, y, x + 182, y + 86), fill=(255, 255, 255), outline=_RULE)
    draw.line((x + 8, y + 14, x + 34, y + 14), fill=_CURVE, width=3)
    draw.line((x + 8, y + 34, x + 34, y + 34), fill=_MEDIAN, width=1)
    draw.rectangle((x + 8, y + 48, x + 34, y + 60), fill=_INNER_BAND)
    draw.rectangle((x + 8, y + 67, x + 34, y + 79), fill=_OUTER_BAND)
    for row, label in enumerate(("this image", "photographs, median", "25-75 %", "5-95 %")):
        _text(draw, (x + 42, y + 14 + row * 20), label, 13, anchor="lm")


def _numbers(draw: ImageDraw.ImageDraw, analysis: SpectralAnalysis) -> None:
    x, y = TEXT_XY
    lines = [
        ("Stratum", analysis.stratum),
        ("Reference", f"{analysis.reference_stratum}, {analysis.photographs} photographs"),
    ]
    if analysis.score is None:
        lines.append(("Score", "none: neither real nor synthetic"))
    # No score and no p-value: a model that reads "synthetic" off the panel repeats it and verifies nothing.
    if analysis.flags:
        lines.append(("Flags", ", ".join(analysis.flags)))
    for label, value in lines:
        _text(draw, (x, y), label, 15, _GREY)
        _text(draw, (x + 104, y), value, 15)
        y += 25
    y += 8
    if analysis.not_applicable is not None:
        for line in textwrap.wrap(f"Not applicable: {analysis.not_applicable}", 48):
            _text(draw, (x, y), line, 16, _CURVE)
            y += 24
        return
    _text(draw, (x, y), "Most unusual features", 15)
    _text(draw, (x + 300, y), "value", 13, _GREY, anchor="ra")
    _text(draw, (x + 400, y), "percentile", 13, _GREY, anchor="ra")
    for feature in analysis.top_features(TOP_FEATURES):
        y += 25
        _text(draw, (x, y), feature.name, 14)
        _text(draw, (x + 300, y), f"{feature.value:.3f}", 14, anchor="ra")
        _text(draw, (x + 400, y), f"{feature.percentile:.1f}", 14, anchor="ra")


def _colour_bar(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, xy: tuple[int, int], ends: tuple[str, str], unit: str
) -> None:
    ramp = np.repeat(np.linspace(1.0, 0.0, MAP_PX, dtype=np.float32)[:, None], 14, axis=1)
    canvas.paste(Image.fromarray(_inferno(ramp, 0.0, 1.0)), xy)
    _text(draw, (xy[0] + 18, xy[1]), ends[1], 13)
    _text(draw, (xy[0] + 18, xy[1] + MAP_PX), ends[0], 13, anchor="ld")
    _text(draw, (xy[0] + 44, xy[1] - 4), unit, 12, _GREY, anchor="rd")


def _pooled(plane: Pixels) -> Pixels:
    """To MAP_PX square; the maximum of each cell where it shrinks, so that a single bright point survives."""
    rows, columns = (max(1, -(-side // MAP_PX)) for side in plane.shape)
    widest: Pixels = cv2.dilate(plane, np.ones((rows, columns), np.uint8))
    resized: Pixels = cv2.resize(widest, (MAP_PX, MAP_PX), interpolation=cv2.INTER_NEAREST)
    return resized


def _inferno(values: Pixels, low: float, high: float) -> npt.NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of values (H, W) between low and high."""
    levels = np.clip((values - low) * (255.0 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    coloured: npt.NDArray[np.uint8] = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return coloured


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _text(
    draw: ImageDraw.ImageDraw,
    xy: tuple[float, float],
    text: str,
    size: int,
    fill: Colour = _BLACK,
    *,
    anchor: str = "la",
) -> None:
    draw.text(xy, text, fill=fill, font=_font(size), anchor=anchor)
