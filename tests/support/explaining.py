"""Decisions with all their evidence in a store, as the fleet leaves them, for `mediasieve explain`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from pipeline.detection.mllm.trace import Trace, Turn
from pipeline.detection.mllm.verdict import Basis, Opinion
from pipeline.evidence.manifest import KIND, SUFFIX, SpectralGrounds, Versions, manifest_of
from pipeline.media.content_store import ContentStore
from pipeline.media.key_store import KeyStore
from pipeline.media.master_keys import MasterKeys
from pipeline.media.objects import Objects
from schemas.decision import Decision, Mode, Outcome, Reason, ReasonCode, Risk, Thresholds
from schemas.forensics import ForensicReport, Hypothesis
from schemas.media import Admission, EvidenceRef, Feature, MediaFacts, StageScore, StageTiming, decision_uid
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.review import Label, ReviewVerdict
from schemas.types import StageName
from tests.support.mllm import report_data
from workers.explain.collect import Explanation, explain
from workers.explain.events import Place, read_event
from workers.explain.evidence import EvidenceReader
from workers.explain.proof import NoProver, Prover
from workers.explain.sources import Found, Records

TENANT = "news-desk"
BUNDLE, POLICY, PRODUCT = "2026.11", "policy-7", "1.2.3"
THRESHOLDS = Thresholds(t1=0.3, priority=0.75, t2=0.55, t3_block=0.8, t3_clear=0.2, p12_block=0.6, uncertain=0.5)
FEATURES = (
    Feature(name="log_peak_max_1_16", value=1.5, percentile=99.6),
    Feature(name="slope", value=-2.25, percentile=3.0),
    Feature(name="top_octave_residual", value=0.69),
)
NO_PROVER = NoProver("No proof was asked for.")
_AT = datetime(2026, 1, 31, 12, 0, 3, 123456, tzinfo=UTC)
_PROMPTS = "ab" * 32


def encrypted_store() -> ContentStore:
    """In memory; `store.keys.destroy` erases."""
    keys = KeyStore(Objects("memory://"), MasterKeys({"m1": bytes(32)}, "m1"))
    return ContentStore("memory://", keys=keys)


@dataclass(slots=True)
class Case:
    """One media item on its way. `original` and `panel` may be any bytes; texts may be hostile."""

    store: ContentStore = field(default_factory=encrypted_store)
    original: bytes = b"original"
    panel: bytes = b"panel"
    media_id: str = "img-1"
    uri: str = "https://media.example.org/img-1.jpg"
    labels: dict[str, str] = field(default_factory=lambda: {"desk": "foreign"})
    facts: MediaFacts | None = None
    answer: str = "Peaks at multiples of 1/16 in both panels."
    detail: str = "final 0.910, before the MLLM 0.875; the model says gan"

    def released(self) -> Decision:
        """The classifier let it go; nothing is kept."""
        reason = Reason(code=ReasonCode.SCORE_BELOW_T1, detail="classifier 0.120 < T1 0.3")
        return self._decision(Outcome.PASS, StageName.CLASSIFIER, (0.12,), 0.12, (reason,), risk=Risk.RELEASED)

    def low_risk(self) -> Decision:
        """The spectral stage let it go; original and manifest are kept."""
        self._keep_original()
        reason = Reason(code=ReasonCode.ANOMALY_BELOW_T2, detail="spectral 0.410 < T2 0.55")
        decision = self._decision(Outcome.PASS, StageName.SPECTRAL, (0.44, 0.38), 0.41, (reason,), risk=Risk.LOW_RISK)
        return self.with_manifest(decision)

    def blocked(self) -> Decision:
        """All stages, with a report."""
        reasons = (
            Reason(code=ReasonCode.SYNTHETIC_CONFIRMED, detail=self.detail),
            Reason(code=ReasonCode.SYNTHETIC_CONFIRMED, detail="peak at 1/16"),
            Reason(code=ReasonCode.NOT_CLEARED, detail="final 0.910 > t3_clear 0.2; verdict gan is not authentic"),
        )
        return self._by_mllm(Outcome.BLOCK, 0.91, reasons, Hypothesis.GAN, 0.97)

    def escalated(self) -> Decision:
        """All stages, with a report that says photograph against the scores."""
        reasons = (
            Reason(code=ReasonCode.UNCERTAIN, detail=self.detail),
            Reason(
                code=ReasonCode.NOT_BLOCKED, detail="final 0.640 < t3_block 0.8; verdict authentic names no generator"
            ),
            Reason(code=ReasonCode.NOT_CLEARED, detail="final 0.640 > t3_clear 0.2"),
            Reason(code=ReasonCode.UNCERTAIN, detail="review ranks it as likely synthetic: final 0.640 >= 0.5"),
        )
        return self._by_mllm(Outcome.ESCALATE, 0.64, reasons, Hypothesis.AUTHENTIC, 0.21)

    def unconfigured(self) -> Decision:
        """The last stage had no model: no trace."""
        self._keep_original()
        reasons = (Reason(code=ReasonCode.MLLM_UNCONFIGURED, detail="no MLLM server is configured"),)
        decision = self._decision(Outcome.ESCALATE, StageName.MLLM, (0.83, 0.91, None), 0.87, reasons)
        return self.with_manifest(
            decision.model_copy(update={"evidence": (self.keep("spectral_panel", self.panel, ".png"),)})
        )

    def undecodable(self) -> Decision:
        """The classifier stage could not decode it; the original is kept as evidence."""
        uri = self._keep_original()
        ref = EvidenceRef(kind="original", uri=uri, sha256=self._facts().sha256)
        reason = Reason(code=ReasonCode.MEDIA_TRUNCATED, detail="image file is truncated")
        decision = self._decision(Outcome.ESCALATE, StageName.CLASSIFIER, (), None, (reason,))
        return self.with_manifest(decision.model_copy(update={"facts": None, "evidence": (ref,)}))

    def keep(self, kind: str, data: bytes, suffix: str) -> EvidenceRef:
        """A piece of evidence in the store."""
        uri, sha256 = self.store.put_evidence(TENANT, data, suffix)
        return EvidenceRef(kind=kind, uri=uri, sha256=sha256)

    def with_manifest(self, decision: Decision) -> Decision:
        """As the stages do it, with a version that does not change with the package's."""
        grounds = SpectralGrounds(score=0.91, p_value=0.004, stratum="jpeg_85_94/384_767", features=FEATURES)
        spectral = None if decision.stage_exited is StageName.CLASSIFIER else grounds
        versions = Versions(package=PRODUCT, records="1.1", bundle=BUNDLE, policy=POLICY, models={}, dialogue=_PROMPTS)
        manifest = manifest_of(decision, self.store, spectral).model_copy(update={"versions": versions})
        ref = self.keep(KIND, manifest.encoded(), SUFFIX)
        return decision.model_copy(update={"evidence": (*decision.evidence, ref)})

    def _by_mllm(
        self, outcome: Outcome, final: float, reasons: tuple[Reason, ...], hypothesis: Hypothesis, probability: float
    ) -> Decision:
        self._keep_original()
        panel = self.keep("spectral_panel", self.panel, ".png")
        trace = self._trace(hypothesis, probability)
        answers = tuple(self.keep(f"mllm_{turn.name}", turn.raw_bytes, ".txt") for turn in trace.turns)
        kept = self.keep("mllm_trace", orjson.dumps(trace.manifest([a.uri for a in answers])), ".json")
        decision = self._decision(outcome, StageName.MLLM, (0.83, 0.91, probability), final, reasons)
        return self.with_manifest(decision.model_copy(update={"evidence": (panel, *answers, kept)}))

    def _trace(self, hypothesis: Hypothesis, probability: float) -> Trace:
        report = ForensicReport.model_validate(report_data(hypothesis=hypothesis.value, rank_guess=None))
        shares = {hypothesis: 0.9, Hypothesis.UNDETERMINED: 0.1}
        opinion = Opinion(probability=probability, raw=probability, basis=Basis.TOKENS, shares=shares, coverage=0.998)
        asked = Turn("reason", "What do both pictures show?", self.answer, 3.5, "stop", 2100, 180)
        reported = Turn("report", "Now the report as JSON.", report.model_dump_json(), 2.25, "stop", 2400, 210)
        return Trace(
            model="qwen-vl@rev1",
            backend="openai",
            capabilities=None,
            prompts={"version": "v2"},
            dialogue_sha256=_PROMPTS,
            passes=2,
            prefill="",
            turns=(asked, reported),
            report=report,
            opinion=opinion,
        )

    def _keep_original(self) -> str:
        return self.store.put(TENANT, self._facts().sha256, self.original)

    def _facts(self) -> MediaFacts:
        if self.facts is not None:
            return self.facts
        sha256 = hashlib.sha256(self.original).hexdigest()
        return MediaFacts(
            sha256=sha256, size_bytes=len(self.original), format="jpeg", lossless=False, width=512, height=384
        )

    def _decision(
        self,
        outcome: Outcome,
        stage: StageName,
        scores: tuple[float | None, ...],
        final: float | None,
        reasons: tuple[Reason, ...],
        *,
        risk: Risk | None = None,
    ) -> Decision:
        facts = self._facts()
        uid = decision_uid(TENANT, self.media_id, facts.sha256, POLICY, BUNDLE)
        stages = tuple(StageName)
        return Decision(
            decision_uid=uid,
            outcome=outcome,
            risk=risk,
            stage_exited=stage,
            final_score=final,
            admission=Admission(
                tenant=TENANT,
                media_id=self.media_id,
                decision_uid=uid,
                uri=self.uri,
                source="upload-api",
                labels=self.labels,
                submitted_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
                admitted_at=datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC),
                policy_version=POLICY,
                bundle_version=BUNDLE,
            ),
            facts=facts,
            scores=tuple(
                StageScore(stage=name, score=score, bundle_version=BUNDLE, model=f"{name.value}-model")
                for name, score in zip(stages, scores, strict=False)
            ),
            mode=Mode.STRICT,
            thresholds=THRESHOLDS,
            reasons=reasons,
            timings=tuple(
                StageTiming(stage=name, waited_ms=41.5, worked_ms=2310.5) for name in stages[: stages.index(stage) + 1]
            ),
            decided_at=_AT,
        )


def finding(decision: Decision) -> bytes:
    """As it is published, with a product version that does not change with the package's."""
    data = orjson.loads(encode_finding(finding_from_decision(decision)))
    data["metadata"]["product"]["version"] = PRODUCT
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


def review(decision: Decision, rationale: str = "the hands are wrong") -> ReviewVerdict:
    """What a person said of it."""
    return ReviewVerdict(
        review_id=UUID(int=7),
        decision_uid=decision.decision_uid,
        tenant=TENANT,
        media_id=decision.admission.media_id,
        label=Label.GENERATED,
        reviewer="ana",
        rationale=rationale,
        reviewed_at=datetime(2026, 2, 1, 9, 30, tzinfo=UTC),
    )


def found(decision: Decision, *later: bytes, place: Place | None = None, **changes: Any) -> Found:
    """As a source gives it; `later`: further findings."""
    events = (read_event(finding(decision), place), *map(read_event, later))
    result = Records("a test", events, **changes).find(decision.decision_uid)
    assert result is not None
    return result


def explained(case: Case, decision: Decision, prover: Prover = NO_PROVER) -> Explanation:
    """With the store of the case and no installed policy."""
    return explain(found(decision), EvidenceReader(case.store), prover, None)
