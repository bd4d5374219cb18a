"""One suite over every stage, with fakes at its seams."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pipeline.detection.spectral.analyser import SpectralAnalyser
from pipeline.evidence.manifest import read_manifest
from pipeline.media.errors import FetchDeferred, FetchRejected
from pipeline.streaming.executors.inline import Inline
from pipeline.streaming.stage import Defer, DeferScope, Emit, Fallback, GiveUpCause, Item, Outcome, Reject, Stage
from schemas.deadletter import RejectCode
from schemas.decision import Decision
from schemas.decision import Outcome as Verdict
from schemas.media import EvidenceRef, MediaReference
from tests.support.cases import PAST, anomalous, suspect
from tests.support.entries import item
from tests.support.worker_stages import (
    DATA,
    MEMORY,
    PANEL_PNG,
    BreakableStore,
    FakedClassifier,
    FakedMllm,
    FakedSpectral,
    png,
    shipped_bundle,
)
from workers.spectral import stage as spectral_stage
from workers.spectral.references import ReferenceFile, References
from workers.spectral.stage import SpectralFallback


@dataclass(frozen=True)
class Case:
    """A stage, an item of any id, items that leave it in as many ways as it has, and what makes it defer."""

    stage: Stage[Any]
    fallback: Fallback[Any]
    item: Callable[[str], Item[Any]]
    variety: Sequence[Item[Any]]
    store: BreakableStore

    def break_store(self) -> None:
        self.store.down = True


def _classifier() -> Case:
    faked = FakedClassifier(other_producers={"tenants": ["acme"]})

    def make(media_id: str, **fields: Any) -> Item[Any]:
        return item(media_id, tenant="acme", value=MediaReference(uri=f"file:///{media_id}", **fields))

    answers = {"gone": FetchRejected(RejectCode.SOURCE_GONE, "404"), "busy": FetchDeferred("503", "h")}
    fetch = faked.fetcher.fetch

    def fetch_by_uri(ref: MediaReference, attempt: int = 1) -> Any:
        answer = answers.get(ref.uri.removeprefix("file:///"))
        if answer is not None:
            raise answer
        return fetch(ref, attempt)

    faked.fetcher.fetch = fetch_by_uri  # type: ignore[method-assign]  # by URI, for one batch of all fates
    variety = [
        make("m-1"),
        make("gone"),
        make("busy"),
        make("m-2", expires_at=PAST),
        replace(make("m-3"), tenant="rival"),
        make("m-4"),
    ]
    return Case(faked.stage, faked.stage.fallback, make, variety, faked.store)


def _with_id(record: Any, media_id: str) -> Item[Any]:
    stamped = record.model_copy(update={"admission": record.admission.model_copy(update={"media_id": media_id})})
    return item(media_id, tenant="acme", value=stamped)


def _spectral() -> Case:
    faked = FakedSpectral()

    def make(media_id: str, data: bytes = b"", **stamped: Any) -> Item[Any]:
        return _with_id(suspect(data=data or png(), **stamped), media_id)

    variety = [make("m-1"), make("m-2", expires_at=PAST), make("m-3", data=b"never stored"), make("m-4")]
    fallback = SpectralFallback(shipped_bundle(), MEMORY)
    fallback._verdicts = replace(fallback._verdicts, store=faked.store)
    return Case(faked.stage, fallback, make, variety, faked.store)


def _spectral_with_references() -> Case:
    """The same stage once it follows a published reference, while another one watches."""
    case = _spectral()
    path = shipped_bundle().path("spectral_reference.npz")
    file = ReferenceFile(SpectralAnalyser(path).reference_hash, path)
    case.stage.adopt(References(file, file))  # type: ignore[attr-defined]  # of this stage alone
    return case


def _mllm() -> Case:
    faked = FakedMllm()
    panel = EvidenceRef(kind="spectral_panel", uri=faked.panel_uri, sha256=faked.panel_sha256)

    def make(media_id: str, data: bytes = DATA, **stamped: Any) -> Item[Any]:
        return _with_id(anomalous(data=data, panel=panel, **stamped), media_id)

    variety = [make("m-1"), make("m-2", expires_at=PAST), make("m-3", data=b"never stored"), make("m-4")]
    return Case(faked.stage, faked.stage.fallback, make, variety, faked.store)


@pytest.fixture(
    params=[_classifier, _spectral, _spectral_with_references, _mllm], ids=lambda make: make.__name__.strip("_")
)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(spectral_stage, "render_panel", lambda image, analysis: PANEL_PNG)
    return request.param()  # type: ignore[no-any-return]  # pytest types it as Any


def named(outcome: Outcome) -> str | None:
    """The media id in the key of an Emit's output."""
    return outcome.outputs[0].key.partition("/")[2] if isinstance(outcome, Emit) else None


def comparable(outcome: Outcome) -> Any:
    """Without what the clock wrote."""
    if not isinstance(outcome, Emit):
        return outcome
    volatile: Any = {"decided_at": True, "timings": True, "admission": {"admitted_at"}}
    told = [(o.topic, o.key, o.record.model_dump(exclude=volatile)) for o in outcome.outputs]
    for _, _, record in told:
        record["evidence"] = [kept for kept in record.get("evidence", ()) if kept["kind"] != "manifest"]
    return told


def test_an_empty_batch_has_no_outcomes(case: Case) -> None:
    assert list(case.stage.process([])) == []


def test_one_outcome_for_each_item_in_the_items_order(case: Case) -> None:
    outcomes = case.stage.process(case.variety)
    assert len(outcomes) == len(case.variety)
    for made, outcome in zip(case.variety, outcomes, strict=True):
        assert isinstance(outcome, Emit | Reject | Defer)
        assert named(outcome) in {None, made.media_id}


def test_an_outcome_does_not_depend_on_the_neighbours(case: Case) -> None:
    together = case.stage.process(case.variety)
    alone = [outcome for made in case.variety for outcome in case.stage.process([made])]
    backwards = list(case.stage.process(case.variety[::-1]))[::-1]
    assert [*map(comparable, together)] == [*map(comparable, alone)] == [*map(comparable, backwards)]


def test_a_redelivered_item_gets_the_same_outcome(case: Case) -> None:
    first, second = (case.stage.process([case.item("m-1")])[0] for _ in range(2))
    assert comparable(first) == comparable(second)


def test_outcomes_and_items_cross_process_borders(case: Case) -> None:
    items, outcomes = list(case.variety), list(case.stage.process(case.variety))
    assert pickle.loads(pickle.dumps(items)) == items
    assert pickle.loads(pickle.dumps(outcomes)) == outcomes


def test_a_missing_store_defers_every_item_that_needs_it(case: Case) -> None:
    case.break_store()
    (outcome,) = case.stage.process([case.item("m-1")])
    assert isinstance(outcome, Defer)


@pytest.mark.parametrize("cause", GiveUpCause)
def test_a_fallback_is_never_a_pass(cause: GiveUpCause, case: Case) -> None:
    outcome = case.fallback(case.item("m-1"), cause, "x" * 10_000)
    assert isinstance(outcome, Emit)
    (output,) = outcome.outputs
    assert isinstance(output.record, Decision)
    assert output.record.outcome is Verdict.ESCALATE
    assert pickle.loads(pickle.dumps(outcome)) == outcome


def test_a_fallback_without_a_store_is_no_decision(case: Case) -> None:
    case.break_store()
    for name in ("m-1", "m-2"):
        outcome = case.fallback(case.item(name), GiveUpCause.DEPENDENCY_UNAVAILABLE, "content store: disk full")
        assert isinstance(outcome, Defer)
        assert outcome.scope is DeferScope.DEPENDENCY


def test_every_decision_but_a_first_pass_names_its_manifest(case: Case) -> None:
    for outcome in case.stage.process(case.variety):
        for output in outcome.outputs if isinstance(outcome, Emit) else ():
            if isinstance(output.record, Decision):
                manifest = read_manifest(output.record, case.store)
                assert manifest is not None
                assert manifest.decision_uid == output.record.decision_uid


def test_an_executor_takes_the_stage_as_it_is(case: Case) -> None:
    """`open` and `close` around a batch, and `close` again after it."""
    executor = Inline(case.stage)
    executor.open()
    executor.submit(1, case.variety)
    (completed,) = executor.completed()
    assert completed.outcomes is not None
    assert len(completed.outcomes) == len(case.variety)
    executor.close(1.0)
    case.stage.close()
