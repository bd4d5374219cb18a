"""The false negative rate of stage 1: labels, weights, bounds, words."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.intervals import Rate
from pipeline.evaluation.monitoring.misses import MissReport, Truth, miss_report, truth_of
from pipeline.evaluation.monitoring.weighted import weighted_share
from schemas.decision import Decision, Outcome, ReasonCode
from schemas.review import Label, ReviewVerdict
from schemas.shadow import AuditSample
from tests.support.monitoring import NOW, by_uid, decided, released, reviewed, sampled


def reported(
    decisions: list[Decision], samples: list[AuditSample], reviews: Mapping[UUID, ReviewVerdict] | None = None
) -> MissReport:
    return miss_report(decisions, samples, reviews or {}, NOW, NOW + timedelta(days=7))


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.001, 1))
def test_equal_weights_give_clopper_and_pearson(marks: list[bool], probability: float) -> None:
    found, exact = weighted_share((m, probability) for m in marks), Rate(sum(marks), len(marks))
    assert found.share == pytest.approx(exact.share)
    assert found.interval == pytest.approx(exact.interval, abs=1e-6)
    assert found.effective == pytest.approx(len(marks))


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 1)), min_size=1, max_size=60))
def test_the_interval_holds_the_share_and_weights_never_add_to_what_is_known(items: list[tuple[bool, float]]) -> None:
    found = weighted_share(items)
    assert found.share is not None
    assert 0 <= found.interval.low <= found.share + 1e-9
    assert found.share - 1e-9 <= found.interval.high <= 1
    assert found.effective <= len(items) * (1 + 1e-9)


def test_inverse_weights_undo_an_uneven_draw() -> None:
    rng = random.Random(5)
    population = [(n % 10 == 0, 0.5 if n % 10 == 0 else 0.05) for n in range(50_000)]
    drawn = [(mark, p) for mark, p in population if rng.random() < p]
    found = weighted_share(drawn)
    assert found.share == pytest.approx(0.1, abs=0.01)
    assert sum(mark for mark, _ in drawn) / len(drawn) > 0.4, "unweighted it would be far off"


def shuffled(rng: np.random.Generator, *parts: tuple[int, float]) -> np.ndarray:
    """Marks of a population: so many items with exactly that share of marked ones, one part after the other."""
    return np.concatenate([rng.permutation(np.arange(count) < round(count * share)) for count, share in parts])


HALF = 10_000


@pytest.mark.parametrize(
    ("parts", "shares"),
    [
        pytest.param(((HALF, 0.05), (HALF, 0.05)), (0.02, 0.02), id="one share"),
        pytest.param(((HALF, 0.002), (HALF, 0.002)), (0.02, 0.02), id="rare, so often none"),
        pytest.param(((HALF, 0.1), (HALF, 0.005)), (0.01, 0.1), id="share raised as misses fell"),
        pytest.param(((HALF, 0.002), (HALF, 0.05)), (0.01, 0.1), id="share raised as misses rose"),
        pytest.param(((HALF, 0.05), (HALF, 0.002)), (0.002, 0.05), id="few with large weights"),
        pytest.param(((HALF // 10, 1.0), (2 * HALF - HALF // 10, 0.0)), (0.02, 0.02), id="one source all generated"),
    ],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(
    parts: tuple[tuple[int, float], ...], shares: tuple[float, float]
) -> None:
    """Repeated draws from one population; how alike the items of a source are is no matter, for each is drawn alone."""
    rng = np.random.default_rng(20)
    marks, rounds = shuffled(rng, *parts), 600
    probabilities = np.repeat(shares, HALF)
    covered = 0
    for _ in range(rounds):
        drawn = rng.random(marks.size) < probabilities
        low, high = weighted_share(zip(marks[drawn].tolist(), probabilities[drawn].tolist(), strict=True)).interval
        covered += low <= marks.mean() <= high
    assert covered / rounds >= 0.94


def test_each_source_is_listed_with_its_scores() -> None:
    passes = [released("a", 0.05), released("b", 0.19), released("c", 0.0, source=None)]
    flagged = [decided("d", Outcome.BLOCK, 1.0, 0.9, 0.9), decided("e", Outcome.ESCALATE)]
    found = reported([*passes, *flagged], [sampled("a", Outcome.PASS, 0.05, 0.1)])
    camera, none = found.sources
    assert (camera.source, camera.items, camera.released, camera.sampled) == ("camera", 4, 2, 1)
    assert camera.scores == (1, 1, 0, 0, 0, 0, 0, 0, 0, 1), "what could not be decoded has no score"
    assert (none.source, none.items) == ("(none)", 1)


def test_samples_that_are_still_on_their_way_are_told() -> None:
    passes = [released(f"r{n}") for n in range(1000)]
    half = [sampled(f"r{n}", Outcome.PASS, 0.1, 0.1, probability=0.5) for n in range(400)]
    found = reported(passes, half)
    assert found.represented == 800
    assert found.notes[0].startswith("the samples stand for 800 of 1000 released")
    whole = [sampled(f"r{n}", Outcome.PASS, 0.1, 0.1, probability=0.5) for n in range(480)]
    assert not any("stand for" in note for note in reported(passes, whole).notes), "as chance would have it"


def test_nothing_drawn_says_nothing() -> None:
    found = weighted_share(())
    assert (found.share, found.interval) == (None, (0.0, 1.0))
    with pytest.raises(ValueError, match="a draw with 0 draws nothing"):
        weighted_share([(True, 0.0)])


@pytest.mark.parametrize(
    ("outcome", "label", "truth"),
    [
        (Outcome.ESCALATE, Label.GENERATED, Truth.GENERATED_BY_PEOPLE),
        (Outcome.BLOCK, Label.PHOTOGRAPH, Truth.REAL_BY_PEOPLE),
        (Outcome.BLOCK, Label.AI_PROCESSED, Truth.REAL_BY_PEOPLE),
        (Outcome.BLOCK, Label.UNDECIDABLE, Truth.UNLABELLED),
        (Outcome.BLOCK, None, Truth.GENERATED_BY_STAGES),
        (Outcome.ESCALATE, None, Truth.UNLABELLED),
    ],
)
def test_people_go_before_machines(outcome: Outcome, label: Label | None, truth: Truth) -> None:
    made = decided("m", outcome, 0.2, 0.9, 0.9)
    assert truth_of(made, reviewed(made, label) if label else None) is truth


def test_the_classifier_is_no_witness_of_itself() -> None:
    silent = sampled("m", Outcome.PASS, 0.1, None, code=ReasonCode.SPECTRAL_NOT_APPLICABLE)
    assert truth_of(silent.decision, None) is Truth.UNLABELLED
    heard = sampled("m", Outcome.PASS, 0.1, 0.2, code=ReasonCode.ANOMALY_BELOW_T2)
    assert truth_of(heard.decision, None) is Truth.REAL_BY_STAGES


def test_bounds_close_as_people_label() -> None:
    passes = [released(f"r{n}") for n in range(1000)]
    blocks = [decided(f"b{n}", Outcome.BLOCK, 0.9, 0.9, 0.9) for n in range(90)]
    held = [sampled(f"r{n}", Outcome.ESCALATE, 0.1, 0.9) for n in range(10)]
    clean = [sampled(f"r{n}", Outcome.PASS, 0.1, 0.1) for n in range(10, 100)]
    open_report = reported([*passes, *blocks], [*held, *clean])
    assert open_report.missed_share.low == 0
    assert open_report.missed_share.high == pytest.approx(0.1)
    assert open_report.fnr.high == pytest.approx(100 / 190)
    labelled = by_uid(
        *(reviewed(s.decision, Label.GENERATED if n == 0 else Label.PHOTOGRAPH) for n, s in enumerate(held))
    )
    closed = reported([*passes, *blocks], [*held, *clean], labelled)
    assert closed.missed_share.low == closed.missed_share.high == pytest.approx(0.01)
    assert closed.fnr.low == closed.fnr.high == pytest.approx(10 / 100)
    low, high = closed.fnr.interval
    exact = Rate(1, 100).interval
    assert low == pytest.approx(1000 * exact.low / (1000 * exact.low + 90))
    assert high == pytest.approx(1000 * exact.high / (1000 * exact.high + 90))


def test_what_stage_1_sent_on_and_nobody_judged_widens_the_rate() -> None:
    passes = [released(f"r{n}") for n in range(100)]
    flagged = [decided(f"e{n}", Outcome.ESCALATE, 0.9, 0.9, 0.9) for n in range(50)]
    hit = [sampled("r0", Outcome.BLOCK, 0.1, 0.9, 0.9, probability=1.0)]
    found = reported([*passes, *flagged], hit)
    assert (found.flagged_generated, found.flagged_unlabelled) == (0, 50)
    assert found.fnr.low == pytest.approx(100 / 150)
    assert found.fnr.high == 1.0


def test_failures_before_any_score_are_no_hits_of_stage_1() -> None:
    found = reported([decided("x", Outcome.ESCALATE)], [])
    assert (found.flagged_generated, found.flagged_unlabelled, found.released) == (0, 0, 0)


def test_without_a_model_the_report_says_what_it_cannot_say() -> None:
    found = reported([released("a")], [sampled("a", Outcome.ESCALATE, 0.1, 0.9, None)])
    assert found.mllm_heard == 0
    assert "the MLLM gave no opinion on any sample" in found.notes[0]
    assert "1 of 1 samples have no label" in found.notes[1]
    assert "people labelled 0 of 1" in found.notes[2]
    assert "no sample yet" in reported([released("a")], []).notes[0]
    assert "released nothing" in reported([], []).notes[0]


@given(st.data())
def test_more_labels_never_leave_the_bounds(data: st.DataObject) -> None:
    outcomes = data.draw(
        st.lists(st.sampled_from([Outcome.PASS, Outcome.ESCALATE, Outcome.BLOCK]), min_size=1, max_size=20)
    )
    samples = [
        sampled(f"r{n}", o, *((0.1, 0.1) if o is Outcome.PASS else (0.1, 0.9, 0.9))) for n, o in enumerate(outcomes)
    ]
    decisions = [
        *(released(f"r{n}") for n in range(40)),
        *(decided(f"b{n}", Outcome.BLOCK, 0.9, 0.9, 0.9) for n in range(7)),
    ]
    before = reported(decisions, samples)
    waiting = [s.decision for s in samples if s.decision.outcome is Outcome.ESCALATE]
    labels = [reviewed(d, data.draw(st.sampled_from([Label.GENERATED, Label.PHOTOGRAPH]))) for d in waiting]
    after = reported(decisions, samples, by_uid(*labels))
    assert before.fnr.low is not None and before.fnr.high is not None  # noqa: PT018 - both, for the type checker
    assert after.fnr.low is not None and after.fnr.high is not None  # noqa: PT018 - likewise
    assert before.fnr.low - 1e-9 <= after.fnr.low <= after.fnr.high + 1e-9 <= before.fnr.high + 2e-9
