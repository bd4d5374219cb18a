from __future__ import annotations

import io
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.robustness.degradations import DELIVERY, GENIMAGE, verdict_flips
from pipeline.evaluation.robustness.suites import APPLIES_TO, SUITES, applies
from pipeline.evaluation.robustness.transform import Chain, Variant
from pipeline.evaluation.score_row import ScoreRow
from pipeline.media.decode import decode_image
from pipeline.media.encode import Pixels, encode
from pipeline.media.errors import MediaError
from pipeline.media.sniff import sniff

VARIANTS = {v.name: v for variants in SUITES.values() for v in variants}


def scene(height: int = 200, width: int = 260) -> Pixels:
    small = np.random.default_rng(1).integers(0, 256, (20, 26, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def png() -> bytes:
    return encode(scene(), "png")


def test_names_are_unique_and_every_suite_says_whom_it_is_for() -> None:
    assert len(VARIANTS) == sum(map(len, SUITES.values()))
    assert set(APPLIES_TO) == set(SUITES)
    assert applies("hard_reals", synthetic=False)
    assert not applies("hard_reals", synthetic=True)
    assert not applies("attacks", synthetic=False)
    assert applies("delivery", synthetic=True)
    assert applies("delivery", synthetic=False)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda v: v.name)
def test_a_variant_is_a_sound_image_that_depends_on_the_key_alone(variant: Variant, png: bytes) -> None:
    once = variant.transform(png, "a")
    assert pickle.loads(pickle.dumps(variant.transform))(png, "a") == once
    assert decode_image(once).rgb.std() > 1
    assert once != png


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda v: v.name)
def test_what_cannot_be_decoded_is_a_media_error(variant: Variant) -> None:
    with pytest.raises(MediaError):
        variant.transform(b"no image", "a")


@pytest.mark.parametrize("name", [n for n in VARIANTS if n.startswith("hard") and "px" not in n and "poster" not in n])
def test_what_is_random_differs_between_images(name: str, png: bytes) -> None:
    assert VARIANTS[name].transform(png, "a") != VARIANTS[name].transform(png, "b")


@pytest.mark.parametrize(
    ("name", "size", "format"),
    [
        ("LR112", (146, 112), "png"),
        ("LR64", (83, 64), "png"),
        ("JPEG65", (260, 200), "jpeg"),
        ("delivery x0.5 webp q75", (130, 100), "webp"),
        ("hard screenshot png", (1280, 800), "png"),
        ("hard document", (850, 1100), "jpeg"),
        ("hard thumbnail 160 px jpeg q80", (160, 123), "jpeg"),
        ("hard thumbnail 400 px webp q80", (260, 200), "webp"),
        ("hard avatar 96 px jpeg q80", (96, 96), "jpeg"),
        ("attack x0.8 jpeg q75", (208, 160), "jpeg"),
    ],
)
def test_sizes_and_formats(name: str, size: tuple[int, int], format: str, png: bytes) -> None:  # noqa: A002 - as MediaFacts
    found = sniff(VARIANTS[name].transform(png, "a"))
    assert ((found.width, found.height), found.format) == (size, format)


@pytest.mark.parametrize(("name", "quality"), [("JPEG65", 65), ("JPEG30", 30), ("delivery jpeg q75", 75)])
def test_jpeg_qualities(name: str, quality: int, png: bytes) -> None:
    assert sniff(VARIANTS[name].transform(png, "a")).jpeg_quality == quality


def test_blur_takes_the_high_frequencies(png: bytes) -> None:
    detail = [np.diff(decode_image(VARIANTS[n].transform(png, "a")).luma, axis=1).std() for n in ("blur 3", "blur 5")]
    assert np.diff(decode_image(png).luma, axis=1).std() > 1.1 * detail[0] > 1.2 * detail[1]


def test_a_small_image_is_not_enlarged() -> None:
    data = encode(scene(60, 50), "png")
    for variant in GENIMAGE[:2]:
        assert decode_image(variant.transform(data, "a")).rgb.shape == (60, 50, 3)


def test_retouching_stays_the_same_picture(png: bytes) -> None:
    original = decode_image(png).luma
    changed = decode_image(VARIANTS["hard retouched"].transform(png, "a")).luma
    assert 0.8 < np.corrcoef(original.ravel(), changed.ravel())[0, 1] < 0.9999


def test_posterised_pictures_have_few_colours(png: bytes) -> None:
    from pipeline.evaluation.robustness.hard_reals import posterised

    changed = posterised(decode_image(png).rgb, np.random.default_rng(0))
    assert len(np.unique(changed)) <= 10


def test_steps_are_chained(png: bytes) -> None:
    chained = Chain((VARIANTS["attack x0.8 jpeg q75"].transform, VARIANTS["hard avatar 96 px jpeg q80"].transform))
    assert Image.open(io.BytesIO(chained(png, "a"))).size == (96, 96)


def row(key: str, variant: str, score: float | None) -> ScoreRow:
    return ScoreRow(
        key=key, synthetic=False, source="s", group="s", generator="", base="", variant=variant, classifier=score
    )


def flagged(of: ScoreRow) -> bool | None:
    return None if of.classifier is None else of.classifier > 0.5


def deliveries(key: str, original: float | None, scores: list[float | None]) -> Iterator[ScoreRow]:
    yield row(key, "blur 3", 0.99)
    for variant, score in zip(DELIVERY, scores, strict=True):
        yield row(key, variant.name, score)
    yield row(key, "as delivered", original)


def test_a_flip_is_a_verdict_that_a_delivery_changes() -> None:
    rows = [
        *deliveries("steady", 0.1, [0.2] * 5),
        *deliveries("flips", 0.9, [0.9, 0.1, 0.9, 0.2, 0.9]),
        *deliveries("silent", 0.9, [None] * 5),
        *deliveries("no original", None, [0.9] * 5),
        *deliveries("partly silent", 0.9, [0.9, None, None, None, None]),
    ]
    flips = verdict_flips(rows, flagged, "as delivered")
    assert (flips.images, flips.flipped) == (3, 1)
    assert [flips.by_variant[v.name] for v in DELIVERY] == [0, 1, 0, 1, 0]
