from __future__ import annotations

import hashlib
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.media.encode import encode
from pipeline.training.dataset import Labelled
from pipeline.training.degrade import (
    PSNR_TOLERANCE_DB,
    SHRINK,
    STAGES,
    DegradeSettings,
    draw,
    psnr,
    shrink_limits,
    softened_to,
    without_jpeg_history,
)
from pipeline.training.pairs import (
    LABELLED,
    LabelledSampler,
    MixedSampler,
    PairSampler,
    PairSettings,
    is_lossless,
)

LOSSLESS = STAGES["lossless"]


def photograph(seed, height=200, width=260):
    """Smooth shapes and some noise: what a photograph is to a codec."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def rows(tmp_path):
    """Per source: two JPEGs and a PNG; two generated PNGs."""

    def stored(name, synthetic, codec, seed):
        data = encode(photograph(seed), codec, 90)
        path = tmp_path / f"{name}-{seed}.{codec}"
        path.write_bytes(data)
        return Labelled(path, hashlib.sha256(data).hexdigest(), synthetic, name, lora=False)

    real = [
        stored(name, False, codec, s + 10 * (name == "b"))
        for name in "ab"
        for s, codec in enumerate(("jpeg", "jpeg", "png"))
    ]
    return [*real, stored("g", True, "png", 100), stored("h", True, "png", 101)]


def blur(rgb):
    return cv2.GaussianBlur(rgb, (0, 0), 1.0)


def sampler(rows, families=None, **settings):
    return PairSampler(rows, families or {"blur": blur}, PairSettings(size_px=64, **settings))


def test_a_pair_depends_on_seed_and_number_alone(rows):
    a, b = sampler(rows), sampler(list(reversed(rows)))
    a.pair(0)
    for number in (5, 2):
        first, second = a.pair(number), b.pair(number)
        assert (first.family, first.source) == (second.family, second.source)
        for side in ("real", "synthetic", "matched"):
            assert np.array_equal(getattr(first, side), getattr(second, side))
    assert not np.array_equal(a.pair(5).real, sampler(rows, seed=1).pair(5).real)


def test_all_sides_have_the_crop_size(rows):
    for pair in sampler(rows).pairs(0, 12):
        assert {pair.real.shape, pair.synthetic.shape, pair.matched.shape} == {(64, 64, 3)}
        assert pair.real.dtype == np.uint8


def test_both_sides_go_through_one_degradation(rows):
    """With the identity for a decoder, nothing tells the sides apart, whatever was drawn."""
    for pair in sampler(rows, {"identity": lambda rgb: rgb.copy()}).pairs(0, 12):
        assert np.array_equal(pair.real, pair.synthetic)
        assert np.array_equal(pair.real, pair.matched)


def test_the_controls_can_be_switched_off(rows):
    found = sampler(rows, matched_negatives=False, shrink_jpegs=False, degrade=LOSSLESS)
    originals = [np.asarray(Image.open(row.path).convert("RGB")) for row in rows if not row.synthetic]
    pair = found.pair(0)
    assert pair.matched is None
    assert any(contains(original, pair.real) for original in originals)
    shrunk = sampler([row for row in rows if not is_lossless(row)], degrade=LOSSLESS).pair(0)
    assert not any(contains(original, shrunk.real) for original in originals)


def contains(image, crop):
    found = cv2.matchTemplate(image, crop, cv2.TM_SQDIFF)
    top, left = np.unravel_index(np.argmin(found), found.shape)
    return np.array_equal(image[top : top + 64, left : left + 64], crop)


def test_lossless_photographs_are_not_shrunk(rows):
    """A PNG has no JPEG history, and shrinking it would make it differ from a JPEG in scale."""
    png = [row for row in rows if is_lossless(row) and not row.synthetic]
    original = [np.asarray(Image.open(row.path)) for row in png]
    assert any(contains(image, sampler(png, degrade=LOSSLESS).pair(1).real) for image in original)


def test_photographs_too_small_for_the_control_are_counted(rows):
    assert sampler(rows).left_out == 0
    small = PairSampler(rows, {"blur": blur}, PairSettings(size_px=128))
    assert small.left_out == 4
    with pytest.raises(ValueError, match="lower size_px"):
        PairSampler(rows, {"blur": blur}, PairSettings(size_px=256))


def test_weights_decide_which_family_and_source_is_drawn(rows):
    families = {"blur": blur, "never": blur}
    found = PairSampler(rows, families, PairSettings(size_px=64), {"never": 0.0}, {"a": 0.0})
    assert {(p.family, p.source) for p in found.pairs(0, 8)} == {("blur", "b")}
    with pytest.raises(ValueError, match="family_weights: other: no such name"):
        PairSampler(rows, families, PairSettings(size_px=64), {"other": 1.0})


def test_a_decoder_that_changes_the_size_is_named(rows):
    with pytest.raises(ValueError, match="half: gave uint8"):
        sampler(rows, {"half": lambda rgb: rgb[::2]}).pair(0)


def test_labelled_pairs_mix_in(rows):
    labelled = LabelledSampler(rows, PairSettings(size_px=64))
    pair = labelled.pair(0)
    assert (pair.family, pair.matched, pair.synthetic.shape) == (LABELLED, None, (64, 64, 3))
    mixed = MixedSampler(sampler(rows), labelled, 0.5)
    families = [mixed.pair(number).family for number in range(16)]
    assert {"blur", LABELLED} == set(families)
    with pytest.raises(ValueError, match="no generated images"):
        LabelledSampler([row for row in rows if not row.synthetic], PairSettings(size_px=64))


def test_draws_stay_within_their_ranges():
    settings = DegradeSettings(rescale=(0.5, 1.2), saves=(1, 2), quality=(40, 60))
    found = [draw(np.random.default_rng(seed), settings) for seed in range(200)]
    assert {len(d.saves) for d in found} == {1, 2}
    assert all(40 <= save.quality <= 60 for d in found for save in d.saves)
    assert all(d.factor == 1.0 or 0.5 <= d.factor <= 1.2 for d in found)
    assert min(d.factor for d in found) < 0.6
    with pytest.raises(ValueError, match=r"at least 1\.30 is needed"):
        draw(np.random.default_rng(0), settings, 1.3)


def test_the_curriculum_grows_harder():
    rgb = photograph(0)
    kept = [psnr(rgb, draw(np.random.default_rng(1), STAGES[name]).apply(rgb)) for name in ("lossless", "q98", "q90")]
    assert kept[0] == math.inf
    assert kept[1] > kept[2] > 25


def test_shrinking_takes_the_block_grid_away():
    """Steps at multiples of 8 px stand out in a JPEG, and nowhere in its shrunk copy."""
    rgb = np.asarray(Image.open(jpeg_of(photograph(3, 400, 520))))
    shrunk = without_jpeg_history(rgb, np.random.default_rng(0), 64)
    assert SHRINK[0] - 0.02 <= shrunk.shape[0] / rgb.shape[0] <= SHRINK[1] + 0.02
    assert blockiness(rgb) > 1.5
    assert max(blockiness(shrunk, phase) for phase in range(8)) < 1.3
    assert shrink_limits(100, 64) is None


def jpeg_of(rgb):
    import io

    return io.BytesIO(encode(rgb, "jpeg", 30))


def blockiness(rgb, phase=0):
    steps = np.abs(np.diff(rgb.astype(float).mean(2), axis=1)).mean(0)
    at = np.arange(steps.size) % 8 == (7 + phase) % 8
    return steps[at].mean() / steps[~at].mean()


@pytest.mark.parametrize("target_db", [24.0, 30.0, 36.0])
def test_a_softened_negative_reaches_the_wanted_psnr(target_db):
    rng = np.random.default_rng(0)
    rgb = blur(np.kron(rng.integers(60, 200, (40, 40, 3), np.uint8), np.ones((5, 5, 1), np.uint8)))
    ways, near = set(), 0
    for _ in range(12):
        soft, way, found_db = softened_to(rgb, target_db, rng)
        ways.add(way)
        assert psnr(rgb, soft) == pytest.approx(found_db)
        assert found_db > target_db - 4 * PSNR_TOLERANCE_DB  # so small an image is resampled in coarse steps
        near += abs(found_db - target_db) <= PSNR_TOLERANCE_DB
    assert len(ways) == 3
    assert near >= 4
