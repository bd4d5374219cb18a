"""Drift: large and no chance, by source."""

from __future__ import annotations

from array import array
from collections import Counter
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.monitoring.corrections import holm
from pipeline.evaluation.monitoring.drift import (
    NO_SOURCE,
    SIGNIFICANCE,
    DriftReport,
    Traffic,
    What,
    by_source,
    by_source_and_time,
    chi_squared,
    drift_report,
    psi_by_chance,
    psi_of_mix,
    psi_of_scores,
)
from schemas.decision import Decision
from tests.support.monitoring import NOW, decided, released

TIMES = (NOW - timedelta(days=28), NOW - timedelta(days=7), NOW)


def traffic(
    count: int, seed: int, *, mean: float = 0.3, quality: int | None = 90, source: str | None = "a"
) -> list[Decision]:
    rng = np.random.default_rng(seed)
    scores = np.clip(rng.normal(mean, 0.1, count), 0, 1)
    return [released(f"{source}-{seed}-{n}", float(s), quality=quality, source=source) for n, s in enumerate(scores)]


def compared(before: list[Decision], after: list[Decision]) -> DriftReport:
    return drift_report(by_source(before), by_source(after), TIMES)


def test_the_same_traffic_is_not_flagged() -> None:
    found = compared(traffic(2000, 1), traffic(2000, 2))
    assert {c.what for c in found.changes} == {What.CLASSIFIER, What.CODEC, What.STRATA}
    assert found.flagged == ()
    assert max(c.psi for c in found.changes) < 0.05


def test_a_source_whose_codec_mix_changed_is_named_with_what_moved() -> None:
    before = [*traffic(400, 1), *traffic(400, 2, source="b")]
    after = [*traffic(400, 3), *traffic(150, 4, source="b"), *traffic(250, 5, source="b", quality=60)]
    found = compared(before, after)
    assert {(c.source, c.what) for c in found.flagged} == {("b", What.CODEC), ("b", What.STRATA)}
    codec = next(c for c in found.flagged if c.what is What.CODEC)
    assert codec.moved in {"jpeg_85_94", "jpeg_0_69"}
    assert abs((codec.moved_after or 0) - (codec.moved_before or 0)) == pytest.approx(250 / 400)


def test_shifted_scores_are_flagged() -> None:
    found = compared(traffic(500, 1), traffic(500, 2, mean=0.4))
    (flagged,) = found.flagged
    assert flagged.what is What.CLASSIFIER
    assert flagged.ks is not None
    assert flagged.ks > 0.3
    assert found.changes[0] is flagged


def test_a_certain_but_small_change_is_not_flagged() -> None:
    rng = np.random.default_rng(1)
    before, after = (Traffic(scores={What.CLASSIFIER: array("d", rng.normal(m, 0.1, 20_000))}) for m in (0.3, 0.31))
    found = drift_report({"a": before}, {"a": after}, TIMES)
    classifier = next(c for c in found.changes if c.what is What.CLASSIFIER)
    assert classifier.p_value < 0.01
    assert not classifier.flagged


def test_alike_traffic_is_flagged_as_seldom_as_it_says_however_small_and_sparse() -> None:
    """100 items in each window over 24 strata, most of them rare: the smallest source that is tested."""
    rng, rounds = np.random.default_rng(8), 500
    shares = np.array([0.5, 0.2, 0.1, *([0.2 / 21] * 21)])
    names = [f"s{n}" for n in range(shares.size)]
    by_chance: list[float] = []
    alarms = 0
    for _ in range(rounds):
        before, after = (Counter(dict(zip(names, rng.multinomial(100, shares).tolist(), strict=True))) for _ in "ab")
        alarms += chi_squared(before, after) < SIGNIFICANCE
        by_chance.append(psi_of_mix(before, after))
    assert alarms / rounds <= 0.02
    assert np.mean(by_chance) > 0.25, "by the convention alone all of them would be another population"
    assert np.mean(by_chance) <= psi_by_chance(shares.size, 100, 100)


def test_rare_categories_are_tested_together() -> None:
    before, after = Counter(a=100, b=100), Counter(a=100, b=100, **dict.fromkeys("cdefgh", 4))
    assert chi_squared(before, after) < 0.001, "none of them has 5 expected, together they have 12"
    assert chi_squared(Counter(a=100), Counter(a=98, b=2)) == 1.0
    assert chi_squared(Counter(a=50, b=50), Counter(b=50, a=50)) == pytest.approx(1.0)


def test_too_few_items_are_counted_and_not_tested() -> None:
    found = compared(traffic(99, 1), traffic(2000, 2, mean=0.9))
    assert found.changes == ()
    assert found.untested == {"a": (99, 2000)}
    assert compared([], traffic(500, 1)).untested == {"a": (0, 500)}


def test_a_decision_without_a_source_or_facts_is_counted() -> None:
    bare = decided("x", released("x").outcome.ESCALATE).model_copy(update={"facts": None})
    made = by_source([bare, released("y", source=None)])
    assert made[NO_SOURCE].items == 1
    assert made["camera"].mixes == {}
    assert Traffic().items == 0


def test_two_windows_are_told_apart_in_one_pass() -> None:
    old, new = by_source_and_time([released("a", at=TIMES[0]), released("b", at=TIMES[1])], TIMES[1])
    assert [window["camera"].items for window in (old, new)] == [1, 1]


mixes = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), max_size=6)


@given(mixes, mixes)
def test_psi_of_a_mix_is_symmetric_and_never_negative(a: dict[str, int], b: dict[str, int]) -> None:
    assert psi_of_mix(a, b) >= 0
    assert psi_of_mix(a, b) == pytest.approx(psi_of_mix(b, a))
    assert psi_of_mix(a, a) == pytest.approx(0)


def test_psi_by_hand() -> None:
    assert psi_of_mix(Counter(a=50, b=50), Counter(a=90, b=10)) == pytest.approx(0.879, abs=0.03)
    constant = np.full(500, 0.5)
    assert psi_of_scores(constant, constant) == 0
    assert psi_of_scores(constant, np.full(500, 0.9)) == 0, "one value has no deciles; the KS test sees it"


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_corrects_upwards_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    ranked = sorted(zip(p_values, corrected, strict=True))
    assert [c for _, c in ranked] == sorted(c for _, c in ranked)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
