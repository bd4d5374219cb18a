"""Tier 3: every way out of the MLLM stage."""

from __future__ import annotations

from typing import Any

import obstore
import orjson
import pytest

from pipeline.detection.mllm.backends.base import ServerUnavailable, VerifyResult
from pipeline.streaming.stage import Defer, DeferScope, GiveUpCause, Item
from schemas.decision import Outcome, ReasonCode, Risk
from schemas.forensics import Hypothesis
from schemas.media import AnomalousMedia, EvidenceRef
from schemas.types import StageName
from tests.support.cases import PAST, anomalous
from tests.support.entries import item as plain_item
from tests.support.worker_stages import DATA, PANEL_PNG, FakedMllm, decided, report, shipped_bundle

MLLM_CODES = [c for c in ReasonCode if c.value.startswith("mllm_")]


@pytest.fixture
def faked() -> FakedMllm:
    return FakedMllm()


def item(faked: FakedMllm, classifier: float = 0.9, spectral: float = 0.9, **stamped: Any) -> Item[AnomalousMedia]:
    panel = EvidenceRef(kind="spectral_panel", uri=faked.panel_uri, sha256=faked.panel_sha256)
    return plain_item(tenant="acme", value=anomalous(classifier, spectral, panel=panel, **{"data": DATA, **stamped}))


def says(hypothesis: Hypothesis, confidence: float = 0.9, raw_text: str = "") -> VerifyResult:
    made = report(hypothesis, confidence)
    return VerifyResult(report=made, model="fake-mllm", raw_text=raw_text, duration_s=0.5)


def test_the_verifier_sees_both_pictures_and_all_that_was_measured(faked: FakedMllm) -> None:
    faked.process(item(faked))
    (request,) = faked.verifier.requests
    assert (request.original, request.panel_png) == (DATA, PANEL_PNG)
    assert request.original_content_type == "image/png"
    assert (request.width, request.height, request.stratum) == (64, 48, "png")
    assert [s.stage for s in request.scores] == [StageName.CLASSIFIER, StageName.SPECTRAL]


@pytest.mark.parametrize("hypothesis", [Hypothesis.GAN, Hypothesis.LORA_TUNED, Hypothesis.BASE_DIFFUSION])
def test_scores_and_verdict_that_agree_block(hypothesis: Hypothesis, faked: FakedMllm) -> None:
    faked.verifier.gives = says(hypothesis)
    decision = decided(faked.process(item(faked, 0.9, 0.9)), Outcome.BLOCK)
    assert (decision.risk, decision.reasons[0].code) == (None, ReasonCode.SYNTHETIC_CONFIRMED)
    assert decision.reasons[1].detail == "peaks at 1/8"
    assert decision.scores[-1].stage is StageName.MLLM
    assert decision.scores[-1].score == 0.9
    assert [e.kind for e in decision.evidence] == ["spectral_panel"]


def test_low_scores_and_an_authentic_verdict_clear(faked: FakedMllm) -> None:
    faked.verifier.gives = says(Hypothesis.AUTHENTIC, 0.8)
    decision = decided(faked.process(item(faked, 0.1, 0.1)), Outcome.PASS)
    assert (decision.risk, decision.reasons[0].code) == (Risk.CLEARED, ReasonCode.AUTHENTIC_CONFIRMED)
    assert decision.scores[-1].score == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("hypothesis", "score"),
    [
        (Hypothesis.AUTHENTIC, 0.9),
        (Hypothesis.GAN, 0.1),
        (Hypothesis.GAN, 0.5),
        (Hypothesis.AUTHENTIC, 0.5),
        (Hypothesis.UNDETERMINED, 0.9),
        (Hypothesis.UNDETERMINED, 0.1),
    ],
)
def test_whatever_disagrees_or_is_undetermined_escalates(
    hypothesis: Hypothesis, score: float, faked: FakedMllm
) -> None:
    faked.verifier.gives = says(hypothesis)
    decision = decided(faked.process(item(faked, score, score)), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.UNCERTAIN


@pytest.mark.parametrize("code", [*MLLM_CODES, ReasonCode.MEDIA_UNDECODABLE])
def test_every_failure_of_the_model_escalates_with_its_code(code: ReasonCode, faked: FakedMllm) -> None:
    faked.verifier.gives = VerifyResult(failure=code, detail="why", model="fake-mllm", duration_s=0.5)
    decision = decided(faked.process(item(faked, 0.1, 0.1)), Outcome.ESCALATE)
    assert (decision.reasons[0].code, decision.reasons[0].detail) == (code, "why")
    assert decision.scores[-1].score is None
    assert decision.scores[-1].note == code
    assert decision.final_score == shipped_bundle().policy.fuse12(0.1, 0.1)


def test_the_models_answer_is_kept_as_it_came(faked: FakedMllm) -> None:
    faked.verifier.gives = says(Hypothesis.GAN, raw_text='{"hypothesis": "gan"}')
    decision = decided(faked.process(item(faked)), Outcome.BLOCK)
    trace = decision.evidence[-1]
    assert trace.kind == "mllm_trace"
    kept = orjson.loads(faked.store.get_evidence(trace.uri, trace.sha256))
    assert kept == {"model": "fake-mllm", "raw_text": '{"hypothesis": "gan"}', "duration_s": 0.5}


def test_an_absent_server_moves_nothing(faked: FakedMllm) -> None:
    faked.verifier.gives = ServerUnavailable("connection refused")
    assert faked.process(item(faked)) == Defer(DeferScope.DEPENDENCY, "MLLM server: connection refused")


def test_without_the_store_nothing_moves(faked: FakedMllm) -> None:
    faked.store.down = True
    assert faked.process(item(faked)) == Defer(DeferScope.DEPENDENCY, "content store: disk full")
    assert faked.verifier.requests == []


def test_an_original_that_is_gone_is_escalated(faked: FakedMllm) -> None:
    decision = decided(faked.process(item(faked, data=b"never stored")), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.CONTENT_MISSING


def test_a_panel_that_was_changed_is_escalated(faked: FakedMllm) -> None:
    obstore.put(faked.store._store, f"evidence/{faked.panel_sha256}.png", b"\x89PNG\r\n\x1a\n another")
    decision = decided(faked.process(item(faked)), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.CONTENT_MISSING
    assert faked.verifier.requests == []


def test_what_has_expired_is_escalated_unasked(faked: FakedMllm) -> None:
    decision = decided(faked.process(item(faked, expires_at=PAST)), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.EXPIRED
    assert faked.verifier.requests == []


@pytest.mark.parametrize(
    ("cause", "detail", "code"),
    [
        (GiveUpCause.DEPENDENCY_UNAVAILABLE, "MLLM server: refused", ReasonCode.MLLM_UNAVAILABLE),
        (GiveUpCause.DEPENDENCY_UNAVAILABLE, "content store: full", ReasonCode.DEPENDENCY_UNAVAILABLE),
        (GiveUpCause.ANALYSIS_CRASH, "ended the process", ReasonCode.ANALYSIS_CRASH),
    ],
)
def test_the_fallback_names_what_was_missing(
    cause: GiveUpCause, detail: str, code: ReasonCode, faked: FakedMllm
) -> None:
    decision = decided(faked.stage.fallback(item(faked), cause, detail), Outcome.ESCALATE)
    assert decision.reasons[0].code is code
    assert decision.stage_exited is StageName.MLLM
    assert [e.kind for e in decision.evidence] == ["spectral_panel"]
