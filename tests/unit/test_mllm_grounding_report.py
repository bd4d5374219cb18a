"""The grounding experiment tells a model that follows the panel from one that ignores it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import pytest

from pipeline.detection.mllm.backends.base import VerifyRequest
from pipeline.evaluation.grounding import Grounding, measure_grounding, with_both_of
from schemas.media import Feature

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def request(name: str, synthetic: bool) -> VerifyRequest:
    """Original, panel and table each say the class, so that a model may read any of them."""
    word = b"made" if synthetic else b"real"
    return VerifyRequest(
        original=name.encode() + b":" + word,
        original_content_type="image/png",
        panel_png=SIGNATURE + name.encode() + word,
        features=(Feature(name="grid", value=float(synthetic), percentile=50.0),),
        stratum="png",
        scores=(),
        width=64,
        height=64,
    )


REAL = [request(f"r{i}", False) for i in range(6)]
MADE = [request(f"m{i}", True) for i in range(4)]


def spread(p: float, seen: bytes) -> float:
    """Between images the answers differ a little, as a model's do."""
    return p + 0.03 * (hashlib.sha256(seen).digest()[0] / 255.0 - 0.5)


def by_panel(asked: VerifyRequest) -> float:
    return spread(0.9 if asked.panel_png.endswith(b"made") else 0.1, asked.panel_png)


def by_picture(asked: VerifyRequest) -> float:
    return spread(0.9 if asked.original.endswith(b"made") else 0.1, asked.original)


def by_table(asked: VerifyRequest) -> float:
    return 0.9 if asked.features[0].value else 0.1


def by_all(asked: VerifyRequest) -> float:
    return (by_panel(asked) + by_picture(asked) + by_table(asked)) / 3.0


def measured(ask: Callable[[VerifyRequest], float | None]) -> Grounding:
    return measure_grounding(REAL, MADE, lambda asked: [ask(one) for one in asked])


def test_a_model_that_follows_the_panel_goes_all_the_way_with_it_and_with_nothing_else() -> None:
    panel, table, both = measured(by_panel).swaps
    assert (panel.name, panel.pairs) == ("panel", 10)
    assert panel.follows == pytest.approx(1.0)
    assert panel.mean_shift == pytest.approx(0.8, abs=0.05)
    assert (panel.agrees_with_image, panel.agrees_with_donor) == (0.0, 1.0)
    assert (table.follows, table.mean_shift, table.agrees_with_image) == (0.0, 0.0, 1.0)
    assert both.follows == pytest.approx(1.0)


def test_a_model_that_looks_at_the_picture_alone_ignores_every_swap() -> None:
    for swap in measured(by_picture).swaps:
        assert (swap.follows, swap.mean_shift, swap.agrees_with_donor) == (0.0, 0.0, 0.0)


def test_a_table_reader_is_told_from_a_panel_reader() -> None:
    panel, table, _ = measured(by_table).swaps
    assert (panel.follows, table.follows) == (0.0, pytest.approx(1.0))


def test_one_that_weighs_all_three_follows_in_part() -> None:
    panel, table, both = measured(by_all).swaps
    assert panel.follows == pytest.approx(1 / 3, abs=0.05)
    assert table.follows == pytest.approx(1 / 3, abs=0.05)
    assert both.follows == pytest.approx(2 / 3, abs=0.05)


def test_saturation_is_of_the_images_own_verdicts() -> None:
    soft = measured(by_table).saturation
    assert (soft.verdicts, soft.saturated) == (10, 0.0)
    assert soft.mean_distance == pytest.approx(0.4)
    hard = measured(lambda asked: 0.999 if asked.features[0].value else 0.3).saturation
    assert hard.saturated == pytest.approx(0.4)


def test_a_silent_model_gives_no_number() -> None:
    found = measured(lambda _: None)
    assert found.silent == 40
    assert found.saturation.verdicts == 0
    assert all(swap.pairs == 0 and math.isnan(swap.follows) for swap in found.swaps)


def test_the_same_verdict_for_all_shows_nothing() -> None:
    assert {swap.pairs for swap in measured(lambda _: 0.7).swaps} == {0}


def test_a_swap_leaves_the_picture() -> None:
    swapped = with_both_of(REAL[0], MADE[0])
    assert swapped.original == REAL[0].original
    assert (swapped.panel_png, swapped.features) == (MADE[0].panel_png, MADE[0].features)


def test_one_class_cannot_be_swapped() -> None:
    with pytest.raises(ValueError, match="both classes"):
        measure_grounding(REAL, [], lambda asked: [0.5] * len(asked))
