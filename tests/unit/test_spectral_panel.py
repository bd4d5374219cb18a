"""The panel: its size, its marks, its bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.detection.spectral import panel
from pipeline.detection.spectral.analyser import SpectralAnalyser
from tests.support.spectral_images import decoded, power_law, small_reference, with_grid


@pytest.fixture(scope="module")
def analyser(tmp_path_factory: pytest.TempPathFactory) -> SpectralAnalyser:
    path: Path = tmp_path_factory.mktemp("reference") / "reference.npz"
    small_reference().save(path)
    return SpectralAnalyser(path)


def pixels(analyser: SpectralAnalyser, luma: np.ndarray, jpeg_quality: int | None = None) -> np.ndarray:
    image = decoded(luma, jpeg_quality)
    return np.asarray(Image.open(io.BytesIO(panel.render_panel(image, analyser.analyse(image)))))


def spectrum_at(panel_pixels: np.ndarray, fy: float, fx: float) -> np.ndarray:
    left, top = panel.SPECTRUM_XY
    return panel_pixels[round(top + (fy + 0.5) * panel.MAP_PX), round(left + (fx + 0.5) * panel.MAP_PX)]


@pytest.mark.parametrize("shape", [(128, 128), (300, 1200), (40, 24), (9, 9)])
def test_the_picture_has_one_size_whatever_the_image(analyser: SpectralAnalyser, shape: tuple[int, int]) -> None:
    assert pixels(analyser, power_law(*shape)).shape == (960, 1024, 3)


def test_a_grid_point_is_bright_inside_its_circle(analyser: SpectralAnalyser) -> None:
    plain = spectrum_at(pixels(analyser, power_law(384, 384)), 0.125, 0.25)
    grid = spectrum_at(pixels(analyser, with_grid(power_law(384, 384), 8)), 0.125, 0.25)

    assert int(grid.sum()) > int(plain.sum()) + 100


def test_marked_points_differ_between_orders_and_when_masked(analyser: SpectralAnalyser) -> None:
    luma = power_law(256, 256)
    lossless, masked = pixels(analyser, luma), pixels(analyser, luma, jpeg_quality=75)
    on_circle = 6 / panel.MAP_PX

    assert spectrum_at(lossless, 0.25, 0.25 + on_circle).tolist() == [0, 255, 255]
    assert spectrum_at(masked, 0.25, 0.25 + on_circle).tolist() != [0, 255, 255]
    assert spectrum_at(lossless, 0.0625, 0.0625 + 3 / panel.MAP_PX).tolist() == [150, 220, 150]


def test_the_same_image_gives_the_same_bytes(analyser: SpectralAnalyser) -> None:
    image = decoded(power_law(200, 150))
    analysis = analyser.analyse(image)

    assert panel.render_panel(image, analysis) == panel.render_panel(image, analysis)


def test_no_mark_falls_outside_the_full_plane() -> None:
    eighths, sixteenths = panel._marked_points(8), panel._marked_points(16)

    assert len(eighths) == 63
    assert len(sixteenths) == 192
    assert not set(eighths) & set(sixteenths)
