from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.leakage import LeakageError, TrainingImage, TrainingImages, write
from pipeline.evaluation.perceptual_hash import dhash256, distance_bits, is_informative
from pipeline.media.encode import Pixels, reencode, rescale


def scene(seed: int, size_px: int = 256) -> Pixels:
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size_px, size_px), Image.Resampling.BICUBIC))


def entry(seed: int, source: str = "kodak") -> TrainingImage:
    return TrainingImage(sha256=f"{seed:064x}", dhash=f"{dhash256(scene(seed)):064x}", source=source, synthetic=False)


def test_a_ramp_sets_every_bit_and_its_mirror_none() -> None:
    ramp = np.repeat(np.linspace(0, 255, 170).astype(np.uint8)[None, :, None], 160, axis=0).repeat(3, axis=2)
    assert dhash256(ramp) == 2**256 - 1
    assert dhash256(ramp[:, ::-1].copy()) == 0


def test_the_first_bit_is_the_highest() -> None:
    rgb = np.zeros((16, 17, 3), np.uint8)
    rgb[0, 1:] = 255
    assert dhash256(rgb) == 1 << 255


def test_copies_stay_near_and_other_pictures_far() -> None:
    original = scene(1)
    for copy in (reencode(original, "jpeg", 50), reencode(original, "webp", 40), rescale(original, 0.4)):
        assert distance_bits(dhash256(original), dhash256(copy)) <= 22
    assert distance_bits(dhash256(original), dhash256(scene(2))) > 60


def test_a_flat_picture_has_no_informative_hash() -> None:
    assert not is_informative(dhash256(np.full((64, 64, 3), 90, np.uint8)))
    assert is_informative(dhash256(scene(3)))


def test_the_same_file_is_found_by_its_digest_whatever_its_hash() -> None:
    images = TrainingImages([entry(7, "gallery")])
    assert images.overlap(f"{7:064x}", 0) == "same file as a training image of gallery"


def test_a_near_duplicate_is_found_and_another_picture_is_not() -> None:
    images = TrainingImages(entry(seed, f"source {seed}") for seed in range(40))
    copy = dhash256(reencode(rescale(scene(11), 0.7), "jpeg", 60))
    found = images.overlap("f" * 64, copy)
    assert found is not None
    assert "source 11" in found
    assert images.overlap("f" * 64, dhash256(scene(99))) is None


@pytest.mark.parametrize(("flipped", "near"), [(0, True), (22, True), (23, False)])
def test_the_limit_is_22_bits_wherever_they_lie(flipped: int, near: bool) -> None:
    original = dhash256(scene(5))
    images = TrainingImages([entry(4), entry(5), entry(6)])
    for start in (0, 60, 200):
        changed = original ^ (((1 << flipped) - 1) << start)
        assert (images.overlap("e" * 64, changed) is not None) is near


def test_two_flat_pictures_are_not_duplicates() -> None:
    flat = TrainingImage(sha256="a" * 64, dhash="0" * 64, source="s", synthetic=True)
    assert TrainingImages([flat]).overlap("b" * 64, 0) is None


def test_the_list_survives_a_file_and_does_not_depend_on_order(tmp_path: Path) -> None:
    images = [entry(seed) for seed in range(5)]
    assert write(tmp_path / "a.jsonl", images) == 5
    assert write(tmp_path / "b.jsonl", [*reversed(images), images[0]]) == 5
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    loaded = TrainingImages.load(tmp_path / "a.jsonl")
    assert len(loaded) == 5
    assert loaded.overlap(f"{3:064x}", 0) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}\n", "line 1: sha256"), ("nonsense\n", "line 1"), ("", "no training image"), (None, "No such file")],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "training.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(LeakageError, match=message):
        TrainingImages.load(path)
