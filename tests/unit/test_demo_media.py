from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from workers.demo_media import (
    BOMB_SIDE_PX,
    LATENT_SIZE_PX,
    STAGES,
    UPSAMPLINGS,
    DemoItem,
    decode_latent,
    make_demo_media,
)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[DemoItem]:
    return make_demo_media(tmp_path_factory.mktemp("media") / "not yet there")


def path_of(item: DemoItem) -> Path:
    return Path(url2pathname(urlparse(item.path_or_uri).path))


def power_spectrum(luma: np.ndarray) -> np.ndarray:
    """(256, 256), windowed, zero frequency at [0, 0], 1/2 cycle per pixel at 128."""
    side = 256
    window = np.hanning(side)
    tile = luma[:side, :side] - luma[:side, :side].mean()
    return np.abs(np.fft.fft2(tile * np.outer(window, window))) ** 2


def grid_peak_ratio(luma: np.ndarray) -> float:
    """Largest power at a multiple of 1/4 cycle per pixel against the median of its neighbourhood."""
    power = power_spectrum(luma)
    ratios = []
    for u, v in ((0, 128), (128, 0), (128, 128), (0, 64), (64, 0), (64, 64), (64, 128), (128, 64)):
        near = np.roll(power, (8 - u, 8 - v), axis=(0, 1))[:17, :17]
        ratios.append(near[8, 8] / np.median(near))
    return float(max(ratios))


def copy_ratio(luma: np.ndarray) -> float:
    """Power of the horizontal axis close to 1/2 cycle per pixel against that around 3/8."""
    axis = np.roll(power_spectrum(luma), 4, axis=0)[:9]
    return float(axis[:, 118:128].mean() / axis[:, 92:102].mean())


def test_there_are_enough_of_every_kind(items: list[DemoItem]) -> None:
    kinds = Counter(item.kind for item in items)
    assert len(items) >= 24
    assert kinds["photograph"] >= 12
    assert kinds["generated"] == 3 * len(UPSAMPLINGS)
    assert all(kinds[kind] == 1 for kind in ("corrupt", "bomb", "missing", "not_an_image"))


def test_every_uri_is_absolute_unique_and_has_a_file_unless_missing(items: list[DemoItem]) -> None:
    assert len({item.path_or_uri for item in items}) == len(items)
    for item in items:
        assert item.path_or_uri.startswith("file:///")
        assert path_of(item).is_file() == (item.kind != "missing"), item


def test_photographs_and_generated_images_decode_at_a_usable_size(items: list[DemoItem]) -> None:
    for item in items:
        if item.kind in {"photograph", "generated"}:
            with Image.open(path_of(item)) as image:
                image.load()
                assert min(image.size) >= 256, item


def test_all_three_formats_are_among_them(items: list[DemoItem]) -> None:
    suffixes = Counter((item.kind, path_of(item).suffix) for item in items)
    for kind in ("photograph", "generated"):
        assert all(suffixes[kind, suffix] >= 2 for suffix in (".png", ".jpg", ".webp"))


def test_the_corrupt_jpeg_has_a_good_header_and_lacks_its_end(items: list[DemoItem]) -> None:
    (path,) = (path_of(item) for item in items if item.kind == "corrupt")
    with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
        image.load()


def test_the_bomb_is_tiny_and_claims_much(items: list[DemoItem]) -> None:
    (path,) = (path_of(item) for item in items if item.kind == "bomb")
    data = path.read_bytes()
    assert len(data) < 4096
    assert int.from_bytes(data[16:20], "big") == int.from_bytes(data[20:24], "big") == BOMB_SIDE_PX
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


def test_the_text_file_is_no_image(items: list[DemoItem]) -> None:
    (path,) = (path_of(item) for item in items if item.kind == "not_an_image")
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)


def photograph_luma(items: list[DemoItem], stem: str) -> np.ndarray:
    (path,) = (path_of(item) for item in items if item.path_or_uri.endswith(f"/photo-{stem}.png"))
    return np.asarray(Image.open(path).convert("L"), np.float64)


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_a_generated_image_is_deterministic_and_varied(name: str) -> None:
    rgb = decode_latent(UPSAMPLINGS[name], seed=7)
    side = LATENT_SIZE_PX * 2**STAGES
    assert rgb.shape == (side, side, 3)
    assert rgb.dtype == np.uint8
    assert np.array_equal(rgb, decode_latent(UPSAMPLINGS[name], seed=7))
    assert not np.array_equal(rgb, decode_latent(UPSAMPLINGS[name], seed=8))
    assert rgb.std() > 20


@pytest.mark.parametrize("name", ["transposed", "pixel-shuffle"])
def test_strided_upsampling_leaves_grid_peaks(name: str) -> None:
    assert grid_peak_ratio(decode_latent(UPSAMPLINGS[name], seed=7).mean(axis=2)) > 30


def test_nearest_neighbour_leaves_a_copy_of_the_spectrum() -> None:
    assert copy_ratio(decode_latent(UPSAMPLINGS["nearest"], seed=7).mean(axis=2)) > 3


@pytest.mark.parametrize("stem", ["astronaut", "coffee", "chelsea", "gravel", "motorcycle_left"])
def test_photographs_leave_neither(items: list[DemoItem], stem: str) -> None:
    luma = photograph_luma(items, stem)
    assert grid_peak_ratio(luma) < 15
    assert copy_ratio(luma) < 2


def test_two_runs_write_the_same_bytes(items: list[DemoItem], tmp_path: Path) -> None:
    again = make_demo_media(tmp_path)
    for first, second in zip(items, again, strict=True):
        assert first.kind == second.kind
        if first.kind != "missing":
            assert path_of(first).read_bytes() == path_of(second).read_bytes()


def test_without_scikit_image_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"mediasieve\[embedded\]"):
        make_demo_media(tmp_path / "media")
    assert not (tmp_path / "media").exists()
