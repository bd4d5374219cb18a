"""Tier 2: every way out of the spectral stage."""

from __future__ import annotations

from typing import Any

import obstore
import pytest

from pipeline.detection.policy import DEFAULT_THRESHOLDS, Fusion, FusionWeights, Policy
from pipeline.detection.spectral.analyser import SpectralAnalysis
from pipeline.evidence.manifest import read_manifest, with_manifest
from pipeline.streaming.stage import Defer, DeferScope, Emit, GiveUpCause, Item
from schemas.decision import Decision, Mode, Outcome, ReasonCode, Risk
from schemas.media import AnomalousMedia, SuspectMedia
from schemas.topics import Topic
from schemas.types import Priority, StageName
from tests.support.cases import PAST, suspect
from tests.support.entries import item as plain_item
from tests.support.worker_stages import (
    MEMORY,
    PANEL_PNG,
    FakedSpectral,
    analysis,
    decided,
    only_record,
    png,
    shipped_bundle,
)
from workers import verdicts
from workers.spectral import stage as spectral_stage
from workers.spectral.stage import SpectralFallback


def item(classifier: float | None = 0.5, *, data: bytes | None = None, **stamped: Any) -> Item[SuspectMedia]:
    return plain_item(tenant="acme", value=suspect(classifier, data=data or png(), **stamped))


FUSED = Policy(
    version="fused", mode=Mode.FUSED, thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t1": 0.0, "t1_alone": 0.3})
)


@pytest.fixture
def fused(faked: FakedSpectral) -> FakedSpectral:
    return FakedSpectral(FUSED)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> FakedSpectral:
    monkeypatch.setattr(spectral_stage, "render_panel", lambda image, analysis: PANEL_PNG)
    return FakedSpectral()


def test_below_t2_is_low_risk_and_needs_no_panel(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(0.5499)
    decision = decided(faked.process(item(0.5)), Outcome.PASS)
    assert decision.risk is Risk.LOW_RISK
    assert decision.reasons[0].code is ReasonCode.ANOMALY_BELOW_T2
    assert [e.kind for e in decision.evidence] == ["manifest"]
    manifest = read_manifest(decision, faked.store)
    assert manifest is not None
    assert manifest.spectral is not None
    assert [feature.name for feature in manifest.spectral.features] == [f"f{i}" for i in range(8)]
    assert decision.final_score == 0.5499
    assert decision.reasons[0].detail == "spectral 0.550 < T2 0.55"
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


def test_in_fused_mode_both_scores_decide_together(fused: FakedSpectral) -> None:
    fused.analyser.gives = analysis(0.6)
    decision = decided(fused.process(item(0.4)), Outcome.PASS)
    assert (decision.mode, decision.thresholds) == (Mode.FUSED, FUSED.thresholds)
    assert decision.final_score == FUSED.fuse12(0.4, 0.6, "png") == pytest.approx(0.5)
    assert decision.reasons[0].detail == "fused 0.500 < T2 0.55"
    fused.analyser.gives = analysis(0.3)
    only_record(fused.process(item(0.9)), Topic.ANOMALOUS)


def test_in_fused_mode_a_missing_score_goes_on(fused: FakedSpectral) -> None:
    fused.analyser.gives = analysis(0.01)
    only_record(fused.process(item(None)), Topic.ANOMALOUS)


@pytest.mark.parametrize(("classifier", "outcome"), [(0.2999, Outcome.PASS), (0.30, Outcome.ESCALATE)])
def test_in_fused_mode_the_classifier_decides_alone_without_a_spectrum(
    classifier: float, outcome: Outcome, fused: FakedSpectral
) -> None:
    fused.analyser.gives = analysis(None, "a flat image has no spectrum")
    decision = decided(fused.process(item(classifier)), outcome)
    assert decision.risk is (Risk.LOW_RISK if outcome is Outcome.PASS else None)
    assert decision.reasons[0].code is ReasonCode.SPECTRAL_NOT_APPLICABLE
    assert decision.final_score == classifier


def test_the_weights_of_the_codec_decide() -> None:
    fusion = Fusion(by_codec={"png": FusionWeights(w1=0.0, w2=1.0)})
    mine = FakedSpectral(FUSED.model_copy(update={"fusion": fusion}))
    mine.analyser.gives = analysis(0.5)
    assert decided(mine.process(item(0.99)), Outcome.PASS).final_score == pytest.approx(0.5)


def test_a_granted_priority_stays_granted(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(0.6)
    only_record(faked.process(item(0.3, priority=Priority.HIGH)), Topic.ANOMALOUS_PRIORITY)


def test_what_the_stage_cannot_judge_is_escalated_with_the_panel(faked: FakedSpectral) -> None:
    faked.analyser.gives = analysis(None, "a flat image has no spectrum")
    decision = decided(faked.process(item(0.4)), Outcome.ESCALATE)
    reason = decision.reasons[0]
    assert (reason.code, reason.detail) == (ReasonCode.SPECTRAL_NOT_APPLICABLE, "a flat image has no spectrum")
    assert [e.kind for e in decision.evidence] == ["spectral_panel", "manifest"]
    assert decision.final_score == 0.4, "what the classifier said, unchanged"
    assert decision.scores[-1].score is None


def test_what_has_expired_is_escalated_unread(faked: FakedSpectral) -> None:
    obstore.delete(faked.store.objects.raw, f"content/acme/{faked.sha256}")
    decision = decided(faked.process(item(expires_at=PAST)), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.EXPIRED


def test_content_that_is_gone_is_escalated(faked: FakedSpectral) -> None:
    decision = decided(faked.process(item(data=b"never stored")), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.CONTENT_MISSING
    assert decision.scores == item().value.scores


def test_content_that_was_changed_is_escalated(faked: FakedSpectral) -> None:
    obstore.put(faked.store.objects.raw, f"content/acme/{faked.sha256}", b"something else")
    decision = decided(faked.process(item()), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.CONTENT_MISSING


def test_without_the_store_nothing_moves(faked: FakedSpectral) -> None:
    faked.store.down = True
    assert faked.process(item()) == Defer(DeferScope.DEPENDENCY, "content store: disk full")


@pytest.mark.parametrize("found", [analysis(0.1), analysis(None, "flat")], ids=["low_risk", "no_spectrum"])
def test_no_decision_without_its_manifest(
    found: SpectralAnalysis, faked: FakedSpectral, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(*what: object) -> Decision:
        faked.store.down = True
        return with_manifest(*what)  # type: ignore[arg-type]  # as it was called

    faked.analyser.gives = found
    monkeypatch.setattr(verdicts, "with_manifest", fill_the_disk)
    assert faked.process(item(0.5)) == Defer(DeferScope.DEPENDENCY, "content store: disk full")
    monkeypatch.undo()
    faked.store.down = False
    monkeypatch.setattr(spectral_stage, "render_panel", lambda image, analysis: PANEL_PNG)
    assert isinstance(faked.process(item(0.5)), Emit)


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
    decision = decided(SpectralFallback(shipped_bundle(), MEMORY)(item(), cause, "why"), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode(cause.value)
    assert decision.stage_exited is StageName.SPECTRAL
    assert decision.scores == item().value.scores
