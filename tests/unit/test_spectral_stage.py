"""Tier 2: every way out of the spectral stage."""

from __future__ import annotations

from typing import Any

import obstore
import pytest

from pipeline.streaming.stage import Defer, DeferScope, GiveUpCause, Item
from schemas.decision import Outcome, ReasonCode, Risk
from schemas.media import AnomalousMedia, SuspectMedia
from schemas.topics import Topic
from schemas.types import Priority, StageName
from tests.support.cases import PAST, suspect
from tests.support.entries import item as plain_item
from tests.support.worker_stages import (
    PANEL_PNG,
    FakedSpectral,
    analysis,
    decided,
    only_record,
    png,
    shipped_bundle,
)
from workers.spectral import stage as spectral_stage
from workers.spectral.stage import SpectralFallback


def item(classifier: float | None = 0.5, *, data: bytes | None = None, **stamped: Any) -> Item[SuspectMedia]:
    return plain_item(tenant="acme", value=suspect(classifier, data=data or png(), **stamped))


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> FakedSpectral:
    monkeypatch.setattr(spectral_stage, "render_panel", lambda image, analysis: PANEL_PNG)
    return FakedSpectral()


def test_below_t2_is_low_risk_and_needs_no_panel(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(0.5499)
    decision = decided(faked.process(item(0.5)), Outcome.PASS)
    assert decision.risk is Risk.LOW_RISK
    assert decision.reasons[0].code is ReasonCode.ANOMALY_BELOW_T2
    assert decision.evidence == ()
    assert decision.final_score == shipped_bundle().policy.fuse12(0.5, 0.5499)
    assert [s.stage for s in decision.scores] == [StageName.CLASSIFIER, StageName.SPECTRAL]
    assert [t.stage for t in decision.timings] == [StageName.CLASSIFIER, StageName.SPECTRAL]


def test_at_t2_it_is_anomalous_and_goes_on_with_its_panel(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(0.55)
    anomalous = only_record(faked.process(item(0.5)), Topic.ANOMALOUS)
    assert isinstance(anomalous, AnomalousMedia)
    assert (anomalous.spectral.score, anomalous.spectral.p_value, anomalous.spectral.stratum) == (0.55, 0.01, "png")
    assert len(anomalous.spectral.top_features) == 8
    panel = anomalous.spectral.panel
    assert faked.store.get_evidence(panel.uri, panel.sha256) == PANEL_PNG
    assert anomalous.scores[-1].note == "png"


def test_the_fused_score_decides_on_the_priority_lane(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(0.9)
    only_record(faked.process(item(0.9)), Topic.ANOMALOUS_PRIORITY)
    only_record(faked.process(item(0.3)), Topic.ANOMALOUS)


def test_a_granted_priority_stays_granted(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(0.6)
    only_record(faked.process(item(0.3, priority=Priority.HIGH)), Topic.ANOMALOUS_PRIORITY)


def test_what_the_stage_cannot_judge_is_escalated_with_the_panel(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(None, "a flat image has no spectrum")
    decision = decided(faked.process(item(0.4)), Outcome.ESCALATE)
    reason = decision.reasons[0]
    assert (reason.code, reason.detail) == (ReasonCode.SPECTRAL_NOT_APPLICABLE, "a flat image has no spectrum")
    assert [e.kind for e in decision.evidence] == ["spectral_panel"]
    assert decision.final_score == 0.4, "what the classifier said, unchanged"
    assert decision.scores[-1].score is None


def test_what_has_expired_is_escalated_unread(faked: FakedSpectral) -> None:
    faked.store.down = True
    decision = decided(faked.process(item(expires_at=PAST)), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.EXPIRED


def test_content_that_is_gone_is_escalated(faked: FakedSpectral) -> None:
    decision = decided(faked.process(item(data=b"never stored")), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.CONTENT_MISSING
    assert decision.scores == item().value.scores


def test_content_that_was_changed_is_escalated(faked: FakedSpectral) -> None:
    obstore.put(faked.store._store, f"content/acme/{faked.sha256}", b"something else")
    decision = decided(faked.process(item()), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.CONTENT_MISSING


def test_without_the_store_nothing_moves(faked: FakedSpectral) -> None:
    faked.store.down = True
    assert faked.process(item()) == Defer(DeferScope.DEPENDENCY, "content store: disk full")


def test_a_panel_that_cannot_be_kept_defers_too(faked: FakedSpectral, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(image: object, analysis: object) -> bytes:
        faked.store.down = True
        return PANEL_PNG

    monkeypatch.setattr(spectral_stage, "render_panel", render)
    outcome = faked.process(item())
    assert isinstance(outcome, Defer)
    assert outcome.scope is DeferScope.DEPENDENCY


def test_bytes_that_do_not_decode_are_escalated(faked: FakedSpectral) -> None:
    cut = item(data=png()[:60])
    faked.store.put("acme", cut.value.facts.sha256, png()[:60])
    decision = decided(faked.process(cut), Outcome.ESCALATE)
    assert decision.reasons[0].code in {ReasonCode.MEDIA_TRUNCATED, ReasonCode.MEDIA_UNDECODABLE}


def test_a_suspect_without_a_classifier_score_is_judged_by_the_spectrum(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(0.8)
    only_record(faked.process(item(None)), Topic.ANOMALOUS_PRIORITY)


@pytest.mark.parametrize("cause", GiveUpCause)
def test_the_fallback_escalates_with_what_the_classifier_measured(cause: GiveUpCause) -> None:
    decision = decided(SpectralFallback(shipped_bundle())(item(), cause, "why"), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode(cause.value)
    assert decision.stage_exited is StageName.SPECTRAL
    assert decision.scores == item().value.scores
