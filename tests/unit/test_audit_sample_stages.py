"""A drawn pass goes through all stages and never reaches a decision topic a second time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from pipeline.evidence.manifest import read_manifest
from pipeline.streaming.stage import Emit, GiveUpCause, Outcome
from schemas.decision import Outcome as Verdict
from schemas.decision import ReasonCode, Risk
from schemas.media import AnomalousMedia, AuditDraw, EvidenceRef, MediaReference, SuspectMedia
from schemas.shadow import AuditSample
from schemas.topics import DECISION_TOPICS, Topic
from schemas.types import Priority, StageName
from tests.support.cases import PAST, anomalous, suspect
from tests.support.entries import item as plain_item
from tests.support.worker_stages import (
    DATA,
    MEMORY,
    PANEL_PNG,
    FakedClassifier,
    FakedMllm,
    FakedSpectral,
    analysis,
    only_record,
    png,
)
from workers.classifier.audit_sample import AuditSampleSettings
from workers.spectral import stage as spectral_stage

DRAW = AuditDraw(probability=0.01)
SHA256 = hashlib.sha256(DATA).hexdigest()


def emitted(outcome: Outcome) -> dict[Topic, Any]:
    assert isinstance(outcome, Emit), outcome
    found = {output.topic: output.record for output in outcome.outputs}
    assert len(found) == len(outcome.outputs)
    return found


def released(share: float, score: float = 0.1, **stamped: Any) -> tuple[FakedClassifier, dict[Topic, Any]]:
    producers = {"vip": {"high_priority": True}}
    faked = FakedClassifier(audit_sample={"share": share}, producers=producers)
    faked.classifier.gives = score
    value = MediaReference(uri="file:///x", tenant="acme", **stamped)
    return faked, emitted(faked.process(replace(plain_item(tenant="acme", value=value), source="vip")))


def test_a_drawn_pass_is_published_as_ever_and_goes_on_beside() -> None:
    faked, found = released(1.0)
    assert set(found) == {Topic.PASS, Topic.SUSPECT}
    passed, sample = found[Topic.PASS], found[Topic.SUSPECT]
    assert (passed.risk, passed.evidence) == (Risk.RELEASED, ())
    assert sample.audit == AuditDraw(probability=1.0)
    assert sample.admission == passed.admission
    assert sample.scores == passed.scores
    assert faked.store.get("acme", SHA256) == DATA


def test_what_is_not_drawn_leaves_nothing() -> None:
    faked, found = released(0.0)
    assert set(found) == {Topic.PASS}
    assert faked.store.names() == []


def test_what_stage_1_sends_on_is_no_sample() -> None:
    _, found = released(1.0, score=0.5)
    assert found[Topic.SUSPECT].audit is None


def test_a_sample_takes_the_normal_lane_whatever_it_was_granted() -> None:
    _, found = released(1.0, priority=Priority.HIGH)
    assert found[Topic.SUSPECT].admission.priority is Priority.HIGH


def test_without_the_store_the_pass_goes_out_unsampled() -> None:
    faked = FakedClassifier(audit_sample={"share": 1.0})
    faked.classifier.gives = 0.1
    faked.store.down = True
    value = MediaReference(uri="file:///x", tenant="acme")
    assert set(emitted(faked.process(plain_item(tenant="acme", value=value)))) == {Topic.PASS}


def test_the_draw_is_the_settings_alone() -> None:
    settings = AuditSampleSettings(share=0.5, seed="a")
    uid = suspect().admission.decision_uid
    assert settings.draw(uid) == AuditSampleSettings(share=0.5, seed="a").draw(uid)


@pytest.fixture
def spectral(monkeypatch: pytest.MonkeyPatch) -> FakedSpectral:
    monkeypatch.setattr(spectral_stage, "render_panel", lambda image, analysis: PANEL_PNG)
    return FakedSpectral()


def sampled(**stamped: Any) -> SuspectMedia:
    return suspect(0.1, data=png(), **stamped).model_copy(update={"audit": DRAW})


def through_spectral(faked: FakedSpectral, media: SuspectMedia) -> Outcome:
    return faked.process(plain_item(tenant="acme", value=media))


def test_stage_2_sends_a_sample_on_with_its_mark_on_the_normal_lane(spectral: FakedSpectral) -> None:
    spectral.analyser.gives = analysis(0.99)
    found = only_record(through_spectral(spectral, sampled(priority=Priority.HIGH)), Topic.ANOMALOUS)
    assert isinstance(found, AnomalousMedia)
    assert found.audit == DRAW


@pytest.mark.parametrize(
    ("score", "stamped", "outcome", "code"),
    [
        (0.2, {}, Verdict.PASS, ReasonCode.ANOMALY_BELOW_T2),
        (None, {}, Verdict.PASS, ReasonCode.SPECTRAL_NOT_APPLICABLE),
        (0.2, {"expires_at": PAST}, Verdict.ESCALATE, ReasonCode.EXPIRED),
    ],
)
def test_stage_2_decides_on_a_sample_for_the_samples_alone(
    score: float | None, stamped: dict[str, Any], outcome: Verdict, code: ReasonCode, spectral: FakedSpectral
) -> None:
    spectral.analyser.gives = analysis(score)
    sample = only_record(through_spectral(spectral, sampled(**stamped)), Topic.AUDIT_SAMPLES)
    assert isinstance(sample, AuditSample)
    assert sample.probability == DRAW.probability
    assert (sample.decision.outcome, sample.decision.reasons[0].code) == (outcome, code)
    assert read_manifest(sample.decision, spectral.store) is not None


def test_a_sample_that_is_given_up_is_a_sample_still(spectral: FakedSpectral) -> None:
    fallback = spectral_stage.SpectralFallback(spectral.stage._bundle, MEMORY)
    outcome = fallback(plain_item(tenant="acme", value=sampled()), GiveUpCause.ANALYSIS_CRASH, "died twice")
    assert only_record(outcome, Topic.AUDIT_SAMPLES).decision.stage_exited is StageName.SPECTRAL


@pytest.mark.parametrize("expired", [False, True])
def test_stage_3_decides_on_a_sample_for_the_samples_alone(expired: bool) -> None:
    faked = FakedMllm()
    panel = EvidenceRef(kind="spectral_panel", uri=faked.panel_uri, sha256=faked.panel_sha256)
    stamped = {"expires_at": PAST} if expired else {}
    media = anomalous(0.9, 0.9, data=DATA, panel=panel, **stamped).model_copy(update={"audit": DRAW})
    sample = only_record(faked.process(plain_item(tenant="acme", value=media)), Topic.AUDIT_SAMPLES)
    assert sample.decision.outcome is (Verdict.ESCALATE if expired else Verdict.BLOCK)
    given_up = faked.stage.fallback(plain_item(tenant="acme", value=media), GiveUpCause.DEPENDENCY_UNAVAILABLE, "x")
    assert not set(emitted(given_up)) & set(DECISION_TOPICS.values())
