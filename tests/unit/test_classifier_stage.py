"""Tier 1: every way out of the classifier stage."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from pipeline.evidence.manifest import read_manifest
from pipeline.media.errors import FetchDeferred, FetchRejected, MediaError
from pipeline.streaming.stage import Defer, DeferScope, GiveUpCause, Item, Reject
from schemas.deadletter import RejectCode
from schemas.decision import Outcome, ReasonCode, Risk
from schemas.media import MediaReference, SuspectMedia, decision_uid
from schemas.topics import Topic
from schemas.types import Priority, StageName
from tests.support.cases import PAST
from tests.support.entries import item as plain_item
from tests.support.worker_stages import DATA, FakedClassifier, decided, only_record, shipped_bundle

SHA256 = hashlib.sha256(DATA).hexdigest()
MEDIA_CODES = [c for c in ReasonCode if c.value.startswith("media_")] + [ReasonCode.ANALYSIS_CRASH]


def item(tenant: str = "acme", attempt: int = 1, **fields: Any) -> Item[MediaReference]:
    reference = MediaReference(uri="file:///x", tenant=tenant, **fields)
    return plain_item(tenant=tenant, attempt=attempt, value=reference)


@pytest.fixture
def faked() -> FakedClassifier:
    return FakedClassifier()


def kept(faked: FakedClassifier, tenant: str = "acme") -> bytes:
    return faked.store.get(tenant, SHA256)


def test_below_t1_is_released_and_nothing_is_kept(faked: FakedClassifier) -> None:
    faked.classifier.gives = 0.2999
    decision = decided(faked.process(item()), Outcome.PASS)
    assert decision.risk is Risk.RELEASED
    assert decision.reasons[0].code is ReasonCode.SCORE_BELOW_T1
    assert decision.final_score == 0.2999
    assert [(s.stage, s.score, s.model) for s in decision.scores] == [(StageName.CLASSIFIER, 0.2999, "fake-model")]
    assert decision.facts is not None
    assert decision.evidence == ()
    with pytest.raises(Exception, match="is not in"):
        kept(faked)


def test_at_t1_it_is_suspect_and_the_original_is_kept_first(faked: FakedClassifier) -> None:
    faked.classifier.gives = 0.3
    suspect = only_record(faked.process(item(labels={"camera": "7"})), Topic.SUSPECT)
    assert isinstance(suspect, SuspectMedia)
    assert kept(faked) == DATA
    assert suspect.admission.labels == {"camera": "7"}
    assert suspect.admission.priority is Priority.NORMAL
    assert [t.stage for t in suspect.timings] == [StageName.CLASSIFIER]
    bundle = shipped_bundle()
    expected = decision_uid("acme", "m-1", SHA256, bundle.policy.version, bundle.version)
    assert suspect.admission.decision_uid == expected


@pytest.mark.parametrize(("score", "topic"), [(0.7499, Topic.SUSPECT), (0.75, Topic.SUSPECT_PRIORITY)])
def test_a_high_score_takes_the_priority_lane(score: float, topic: Topic, faked: FakedClassifier) -> None:
    faked.classifier.gives = score
    only_record(faked.process(item()), topic)


def test_a_granted_priority_takes_the_lane_whatever_the_score() -> None:
    faked = FakedClassifier(producers={"vip": {"high_priority": True}})
    asked = replace(item(priority=Priority.HIGH), source="vip")
    suspect = only_record(faked.process(asked), Topic.SUSPECT_PRIORITY)
    assert suspect.admission.priority is Priority.HIGH


def test_a_priority_that_is_not_granted_changes_nothing(faked: FakedClassifier) -> None:
    suspect = only_record(faked.process(item(priority=Priority.HIGH)), Topic.SUSPECT)
    assert suspect.admission.priority is Priority.NORMAL


def test_a_tenant_that_the_producer_may_not_name_is_rejected_unfetched() -> None:
    faked = FakedClassifier(other_producers={"tenants": ["acme"]})
    outcome = faked.process(item(tenant="rival"))
    assert isinstance(outcome, Reject)
    assert outcome.code is RejectCode.TENANT_REFUSED
    assert "'rival'" in outcome.detail
    assert faked.fetcher.attempts == []


def test_what_has_expired_is_escalated_unfetched(faked: FakedClassifier) -> None:
    decision = decided(faked.process(item(expires_at=PAST)), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.EXPIRED
    assert faked.fetcher.attempts == []


@pytest.mark.parametrize("code", [RejectCode.SOURCE_GONE, RejectCode.URI_REFUSED, RejectCode.DECLARED_MISMATCH])
def test_a_refused_reference_is_rejected(code: RejectCode, faked: FakedClassifier) -> None:
    faked.fetcher.gives = FetchRejected(code, "why")
    assert faked.process(item()) == Reject(code, "why")


def test_an_absent_origin_defers_the_item_alone(faked: FakedClassifier) -> None:
    faked.fetcher.gives = FetchDeferred("503", "cdn.example")
    assert faked.process(item(attempt=3)) == Defer(DeferScope.ITEM, "503")
    assert faked.fetcher.attempts == [3], "the later tries have the longer time cap"


def test_what_is_known_to_be_too_large_is_escalated_without_content(faked: FakedClassifier) -> None:
    faked.fetcher.gives = MediaError(ReasonCode.MEDIA_TOO_LARGE, "100 MB")
    decision = decided(faked.process(item()), Outcome.ESCALATE)
    assert (decision.reasons[0].code, decision.reasons[0].detail) == (ReasonCode.MEDIA_TOO_LARGE, "100 MB")
    assert [kept.kind for kept in decision.evidence] == ["manifest"]
    manifest = read_manifest(decision, faked.store)
    assert manifest is not None
    assert manifest.content is None


@pytest.mark.parametrize("code", MEDIA_CODES)
def test_what_cannot_be_analysed_is_escalated_with_the_original(code: ReasonCode, faked: FakedClassifier) -> None:
    faked.sandbox.gives = MediaError(code, "why")
    decision = decided(faked.process(item()), Outcome.ESCALATE)
    assert decision.reasons[0].code is code
    original, _ = decision.evidence
    assert (original.kind, original.sha256) == ("original", SHA256)
    assert faked.store.get_uri(original.uri) == DATA
    assert len(decision.timings) == 1
    manifest = read_manifest(decision, faked.store)
    assert manifest is not None
    assert manifest.content is not None
    assert (manifest.content.uri, manifest.content.sha256) == (original.uri, SHA256)


@pytest.mark.parametrize("error", [None, MediaError(ReasonCode.MEDIA_TRUNCATED, "x")], ids=["suspect", "unreadable"])
def test_without_the_store_nothing_moves(error: Exception | None, faked: FakedClassifier) -> None:
    faked.store.down = True
    faked.sandbox.gives = error or faked.sandbox.gives
    assert faked.process(item()) == Defer(DeferScope.DEPENDENCY, "content store: disk full")


def test_real_media_need_no_store(faked: FakedClassifier) -> None:
    faked.store.down = True
    faked.classifier.gives = 0.1
    decided(faked.process(item()), Outcome.PASS)


def test_a_first_pass_writes_no_object(faked: FakedClassifier) -> None:
    faked.classifier.gives = 0.1
    assert decided(faked.process(item()), Outcome.PASS).evidence == ()
    assert faked.store.names() == []


@pytest.mark.parametrize("error", [MediaError(ReasonCode.MEDIA_TOO_LARGE, "100 MB"), None], ids=["too_large", "late"])
def test_no_decision_without_its_manifest_and_one_once_the_store_is_back(
    error: Exception | None, faked: FakedClassifier
) -> None:
    given = item() if error else item(expires_at=PAST)
    faked.fetcher.gives = error or faked.fetcher.gives
    faked.store.down = True
    assert faked.process(given) == Defer(DeferScope.DEPENDENCY, "content store: disk full")
    faked.store.down = False
    assert [kept.kind for kept in decided(faked.process(given), Outcome.ESCALATE).evidence] == ["manifest"]


def test_after_an_outage_the_store_is_asked_before_the_origin(faked: FakedClassifier) -> None:
    faked.fetcher.gives = MediaError(ReasonCode.MEDIA_TOO_LARGE, "100 MB")
    faked.store.down = True
    faked.process(item())
    faked.process(item())
    assert faked.fetcher.attempts == [1], "nothing is fetched only to be thrown away"
    faked.store.down = False
    decided(faked.process(item()), Outcome.ESCALATE)


@pytest.mark.parametrize(("declared", "used"), [("image/png", "image/png"), (None, "image/jpeg")])
def test_the_producers_content_type_goes_before_the_origins(
    declared: str | None, used: str, faked: FakedClassifier
) -> None:
    faked.process(item(content_type=declared))
    assert faked.sandbox.declared == [used]


def test_a_bug_in_the_model_is_no_verdict(faked: FakedClassifier) -> None:
    faked.classifier.gives = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        faked.process(item())


@pytest.mark.parametrize("cause", GiveUpCause)
def test_the_fallback_escalates_with_its_cause(cause: GiveUpCause, faked: FakedClassifier) -> None:
    decision = decided(faked.stage.fallback(item(), cause, "x" * 5000), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode(cause.value)
    assert len(decision.reasons[0].detail) == 1024
    assert decision.stage_exited is StageName.CLASSIFIER
