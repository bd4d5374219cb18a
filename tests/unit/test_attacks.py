from __future__ import annotations

import pickle

import numpy as np
import pytest

from pipeline.evaluation.robustness.attacks import (
    ATTACKS,
    Reconstructed,
    decoder_attacks,
    laundering,
    remove_peaks,
    sharpen_and_add_noise,
)
from pipeline.media.decode import decode_image
from pipeline.media.encode import Pixels, encode


def power_law(height: int, width: int, seed: int = 0) -> Pixels:
    """A grey field without any grid."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = 1.0
    noise = np.random.default_rng(seed).normal(size=(height, width))
    field = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    grey = np.clip(128 + 30 * (field - field.mean()) / field.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def with_grid(rgb: Pixels, period: int, amplitude: float = 12.0) -> Pixels:
    """A decoder's footprint: one random tile, repeated."""
    tile = np.random.default_rng(period).normal(0, amplitude, (period, period))
    repeats = [-(-side // period) for side in rgb.shape[:2]]
    field = rgb + np.tile(tile, repeats)[: rgb.shape[0], : rgb.shape[1], None]
    return np.clip(field, 0, 255).astype(np.uint8)


def peak_ratios(rgb: Pixels, grid: int = 16) -> list[float]:
    """Magnitude at each harmonic over the median of its 13 x 13 neighbourhood without the inner 3 x 3."""
    grey = rgb[..., 1].astype(np.float64)
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))
    magnitude = np.abs(np.fft.fft2((grey - grey.mean()) * window))
    inner = np.ones((13, 13), bool)
    inner[5:8, 5:8] = False
    ratios = []
    for m in range(1, grid // 2):
        for n in range(1, grid // 2):
            y, x = round(m * grey.shape[0] / grid), round(n * grey.shape[1] / grid)
            ratios.append(magnitude[y, x] / np.median(magnitude[y - 6 : y + 7, x - 6 : x + 7][inner]))
    return ratios


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(256, 256), (301, 413), (512, 384)])
def test_the_mask_lowers_a_decoders_peaks_to_those_of_a_photograph(shape: tuple[int, int]) -> None:
    clean = power_law(*shape)
    made = with_grid(clean, 16)
    removed = remove_peaks(made, rng())
    assert np.median(peak_ratios(made)) > 6
    assert np.median(peak_ratios(removed)) < 2
    assert removed.shape == made.shape


def test_the_mask_is_hard_to_see_and_leaves_a_clean_image_nearly_alone() -> None:
    clean = power_law(256, 256)
    difference = clean.astype(np.float64) - remove_peaks(clean, rng())
    assert 20 * np.log10(255 / np.sqrt((difference**2).mean())) > 38


def test_a_grid_of_8_leaves_the_odd_sixteenths() -> None:
    made = with_grid(power_law(256, 256), 16, 20.0)
    odd = [i for i in range(49) if (i // 7) % 2 == 0 and (i % 7) % 2 == 0]
    by_8, by_16 = peak_ratios(remove_peaks(made, rng(), grid=8)), peak_ratios(remove_peaks(made, rng()))
    assert np.median([by_8[i] for i in odd]) > 3 * np.median([by_16[i] for i in odd])


def test_sharpening_raises_the_high_frequencies() -> None:
    blurred = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (256, 1))[..., None], 3, axis=2)
    sharp = sharpen_and_add_noise(blurred, rng())
    assert np.diff(sharp.astype(int), axis=0).std() > np.diff(blurred.astype(int), axis=0).std()


def half(rgb: Pixels) -> Pixels:
    return rgb // 2


def wrong(rgb: Pixels) -> Pixels:
    return rgb[:-1]


def test_the_callers_decoder_gets_sides_that_it_can_take() -> None:
    rgb = power_law(70, 100)
    assert Reconstructed(half)(rgb, rng()).shape == (64, 96, 3)
    with pytest.raises(ValueError, match="reconstruct"):
        Reconstructed(wrong)(rgb, rng())


def test_decoders_become_variants_by_name() -> None:
    data = encode(power_law(64, 64), "png")
    for suite, verb in ((decoder_attacks, "attack decoder"), (laundering, "laundered by")):
        variants = suite({"tiny": half, "big": half})
        assert [v.name for v in variants] == [f"{verb} big", f"{verb} tiny"]
        assert np.array_equal(decode_image(variants[0].transform(data, "k")).rgb, decode_image(data).rgb // 2)


def test_attacks_survive_pickling() -> None:
    data = encode(power_law(64, 64), "png")
    for variant in ATTACKS:
        assert pickle.loads(pickle.dumps(variant)).transform(data, "k") == variant.transform(data, "k")
