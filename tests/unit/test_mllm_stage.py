"""Tier 3: every way out of the MLLM stage."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

import obstore
import orjson
import pytest

from pipeline.detection.calibration import logit, sigmoid
from pipeline.detection.mllm.backends.base import VerifyResult
from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.detection.mllm.trace import Trace, Turn
from pipeline.detection.policy import Fusion, Policy
from pipeline.evidence.manifest import read_manifest
from pipeline.streaming.stage import Defer, DeferScope, GiveUpCause, Item
from schemas.decision import Outcome, ReasonCode, Risk
from schemas.forensics import Hypothesis
from schemas.media import AnomalousMedia, EvidenceRef
from schemas.types import StageName
from tests.support.cases import PAST, anomalous
from tests.support.entries import item as plain_item
from tests.support.worker_stages import DATA, PANEL_PNG, FakedMllm, decided, report, reported, shipped_bundle
from workers.mllm.breaker import NotAsked

MLLM_CODES = [c for c in ReasonCode if c.value.startswith("mllm_")]


@pytest.fixture
def faked() -> FakedMllm:
    return FakedMllm()


def item(faked: FakedMllm, classifier: float = 0.9, spectral: float = 0.9, **stamped: Any) -> Item[AnomalousMedia]:
    panel = EvidenceRef(kind="spectral_panel", uri=faked.panel_uri, sha256=faked.panel_sha256)
    return plain_item(tenant="acme", value=anomalous(classifier, spectral, panel=panel, **{"data": DATA, **stamped}))


def says(
    hypothesis: Hypothesis, confidence: float = 0.9, trace: Trace | None = None, *, calibrated: bool = False
) -> VerifyResult:
    return reported(report(hypothesis, confidence), trace, calibrated=calibrated)


def traced(*raw_texts: str) -> Trace:
    turns = tuple(Turn(name, "?", raw, 0.1, "stop") for name, raw in zip(("reason", "report"), raw_texts, strict=True))
    return Trace(
        model="fake-mllm",
        backend="fake",
        capabilities=None,
        prompts={},
        dialogue_sha256="0" * 64,
        passes=2,
        prefill="",
        turns=turns,
    )


def test_the_verifier_sees_both_pictures_and_all_that_was_measured(faked: FakedMllm) -> None:
    faked.process(item(faked))
    (request,) = faked.verifier.requests
    assert (request.original, request.panel_png) == (DATA, PANEL_PNG)
    assert request.panel_sha256 == hashlib.sha256(PANEL_PNG).hexdigest()
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
    assert [e.kind for e in decision.evidence] == ["spectral_panel", "manifest"]


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


def test_each_answer_and_the_trace_are_kept_under_their_own_digests(faked: FakedMllm) -> None:
    faked.verifier.gives = says(Hypothesis.GAN, trace=traced("I see peaks", '{"hypothesis": "gan"}'))
    decision = decided(faked.process(item(faked)), Outcome.BLOCK)
    _, reason, report, trace, _ = decision.evidence
    assert [e.kind for e in (reason, report, trace)] == ["mllm_reason", "mllm_report", "mllm_trace"]
    assert faked.store.get_evidence(reason.uri, reason.sha256) == b"I see peaks"
    assert faked.store.get_evidence(report.uri, report.sha256) == b'{"hypothesis": "gan"}'
    kept = orjson.loads(faked.store.get_evidence(trace.uri, trace.sha256))
    assert [(turn["raw_uri"], turn["raw_sha256"]) for turn in kept["turns"]] == [
        (reason.uri, reason.sha256),
        (report.uri, report.sha256),
    ]


def test_a_failures_trace_is_kept_too(faked: FakedMllm) -> None:
    faked.verifier.gives = VerifyResult(
        failure=ReasonCode.MLLM_REFUSED, model="fake-mllm", trace=traced("I see", "I will not"), duration_s=0.5
    )
    decision = decided(faked.process(item(faked)), Outcome.ESCALATE)
    kinds = ["spectral_panel", "mllm_reason", "mllm_report", "mllm_trace", "manifest"]
    assert [e.kind for e in decision.evidence] == kinds


def test_the_manifest_holds_what_the_verdict_rests_on(faked: FakedMllm) -> None:
    faked.verifier.gives = says(Hypothesis.GAN, trace=traced("I see peaks", "{}"))
    decision = decided(faked.process(item(faked)), Outcome.BLOCK)
    manifest = read_manifest(decision, faked.store)
    assert manifest is not None
    assert manifest.evidence == decision.evidence[:-1], "panel and trace, by digest"
    assert manifest.content is not None
    assert faked.store.get_uri(manifest.content.uri) == DATA
    assert manifest.spectral is not None
    assert manifest.spectral.features == item(faked).value.spectral.top_features
    assert manifest.versions.models == {score.stage: score.model for score in decision.scores}
    assert manifest.versions.dialogue == traced("", "").dialogue_sha256
    assert (manifest.outcome, manifest.thresholds) == (decision.outcome, decision.thresholds)


def test_no_decision_without_its_trace(faked: FakedMllm) -> None:
    def answer_and_lose_the_disk(_: object) -> VerifyResult:
        faked.store.down = True
        return says(Hypothesis.GAN, trace=traced("a", "b"))

    faked.verifier.verify = answer_and_lose_the_disk  # type: ignore[method-assign]  # a fake at the seam
    assert faked.process(item(faked)) == Defer(DeferScope.DEPENDENCY, "content store: disk full")


def test_no_decision_without_its_manifest_and_one_once_the_store_is_back(faked: FakedMllm) -> None:
    expired = item(faked, expires_at=PAST)
    faked.store.down = True
    assert faked.process(expired) == Defer(DeferScope.DEPENDENCY, "content store: disk full")
    faked.store.down = False
    assert decided(faked.process(expired), Outcome.ESCALATE).reasons[0].code is ReasonCode.EXPIRED


LISTENING = Policy(version="test", fusion=Fusion(mllm_weight=1.0))


def test_an_opinion_without_calibration_moves_no_score() -> None:
    faked = FakedMllm(LISTENING)
    faked.verifier.gives = says(Hypothesis.GAN, 0.999)
    decision = decided(faked.process(item(faked, 0.7, 0.7)), Outcome.ESCALATE)
    assert decision.final_score == pytest.approx(0.7)
    assert decision.scores[-1].note == "stated confidence, uncalibrated"


def test_a_calibrated_opinion_moves_it_within_the_bound() -> None:
    faked = FakedMllm(LISTENING)
    faked.verifier.gives = says(Hypothesis.GAN, 0.999, calibrated=True)
    decision = decided(faked.process(item(faked, 0.7, 0.7)), Outcome.BLOCK)
    assert decision.final_score == pytest.approx(sigmoid(logit(0.7) + 1.0))
    assert decision.scores[-1].note == "stated confidence, calibrated"


def test_what_was_not_decided_is_explained(faked: FakedMllm) -> None:
    faked.verifier.gives = says(Hypothesis.AUTHENTIC)
    codes = [r.code for r in decided(faked.process(item(faked, 0.9, 0.9)), Outcome.ESCALATE).reasons]
    assert ReasonCode.NOT_BLOCKED in codes
    assert ReasonCode.NOT_CLEARED in codes


def test_an_absent_server_moves_nothing(faked: FakedMllm) -> None:
    faked.verifier.gives = ServerUnavailable("connection refused", 7.0)
    assert faked.process(item(faked)) == Defer(DeferScope.DEPENDENCY, "MLLM server: connection refused", 7.0)


def test_what_waited_too_long_unasked_is_given_to_people() -> None:
    faked = FakedMllm(max_wait_s=60.0)
    faked.verifier.gives = NotAsked("budget spent", 5.0, ReasonCode.MLLM_OVERLOADED)
    old = replace(item(faked), queued_at_s=time.time() - 100.0)
    decision = decided(faked.process(old), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.MLLM_OVERLOADED
    young = replace(old, queued_at_s=time.time())
    assert isinstance(faked.process(young), Defer)


def test_a_backlog_beyond_its_age_is_given_to_people_and_not_asked_about() -> None:
    faked = FakedMllm(max_age_s=60.0)
    old = replace(item(faked), queued_at_s=time.time() - 100.0)
    assert decided(faked.process(old), Outcome.ESCALATE).reasons[0].code is ReasonCode.MLLM_OVERLOADED
    assert faked.verifier.requests == []


def test_without_the_store_nothing_moves(faked: FakedMllm) -> None:
    faked.store.down = True
    assert faked.process(item(faked)) == Defer(DeferScope.DEPENDENCY, "content store: disk full")
    assert faked.verifier.requests == []


def test_an_original_that_is_gone_is_escalated(faked: FakedMllm) -> None:
    decision = decided(faked.process(item(faked, data=b"never stored")), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.CONTENT_MISSING


def test_a_panel_that_was_changed_is_escalated(faked: FakedMllm) -> None:
    obstore.put(faked.store.objects.raw, f"evidence/acme/{faked.panel_sha256}.png", b"\x89PNG\r\n\x1a\n another")
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
    assert [e.kind for e in decision.evidence] == ["spectral_panel", "manifest"]
