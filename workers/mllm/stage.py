"""Tier 3: a model sees image and spectral panel together; its opinion is bounded, its reasoning is kept."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.backends.base import ServerUnavailable, Verifier, VerifyRequest, VerifyResult
from pipeline.detection.policy import codec_of
from pipeline.media.content_store import ContentStore
from pipeline.media.errors import ContentCorrupt, ContentMissing, StoreUnavailable
from pipeline.streaming.stage import Defer, DeferScope, GiveUpCause, Item, Outcome
from schemas.decision import Outcome as Verdict
from schemas.decision import Reason, ReasonCode
from schemas.forensics import ForensicReport, Hypothesis
from schemas.media import AnomalousMedia, EvidenceRef, StageScore
from schemas.types import StageName
from workers.verdicts import CaseFile, Stopwatch, Verdicts, classifier_score, expired, reason

STAGE = StageName.MLLM
_SERVER = "MLLM server"


class MllmStage:
    """See Stage. Thread-safe as its verifier is."""

    def __init__(self, bundle: Bundle, verifier: Verifier, store_url: str) -> None:
        """Opens nothing."""
        self._bundle = bundle
        self._verifier = verifier
        self._store = ContentStore(store_url)
        self._verdicts = Verdicts(STAGE, bundle.policy)

    def open(self) -> None:
        """See Stage."""
        self._verifier.open()

    def process(self, batch: Sequence[Item[AnomalousMedia]]) -> Sequence[Outcome]:
        """See Stage."""
        return [self._one(item) for item in batch]

    def close(self) -> None:
        """See Stage."""
        self._verifier.close()

    def fallback(self, item: Item[AnomalousMedia], cause: GiveUpCause, detail: str) -> Outcome:
        """See Fallback."""
        code = ReasonCode.MLLM_UNAVAILABLE if detail.startswith(_SERVER) else ReasonCode(cause.value)
        return self._verdicts.escalated(_case(item.value), [reason(code, detail)])

    def _one(self, item: Item[AnomalousMedia]) -> Outcome:
        media = item.value
        case = _case(media)
        watch = Stopwatch(STAGE, item)
        if expired(media.admission):
            return self._verdicts.escalated(case.timed(watch.stop()), [reason(ReasonCode.EXPIRED)])
        try:
            result = self._verifier.verify(self._request(media))
            return self._conclude(media, result, watch)
        except ServerUnavailable as error:
            return Defer(DeferScope.DEPENDENCY, f"{_SERVER}: {error}")
        except StoreUnavailable as error:
            return Defer(DeferScope.DEPENDENCY, f"content store: {error}")
        except (ContentMissing, ContentCorrupt) as error:
            return self._verdicts.escalated(case.timed(watch.stop()), [reason(ReasonCode.CONTENT_MISSING, str(error))])

    def _request(self, media: AnomalousMedia) -> VerifyRequest:
        panel = media.spectral.panel
        return VerifyRequest(
            original=self._store.get(media.admission.tenant, media.facts.sha256),
            original_content_type=f"image/{media.facts.format}",
            panel_png=self._store.get_evidence(panel.uri, panel.sha256),
            features=media.spectral.top_features,
            stratum=media.spectral.stratum,
            scores=media.scores,
            width=media.facts.width,
            height=media.facts.height,
        )

    def _conclude(self, media: AnomalousMedia, result: VerifyResult, watch: Stopwatch) -> Outcome:
        policy = self._bundle.policy
        p12 = policy.fuse12(classifier_score(media.scores), media.spectral.score, codec_of(media.spectral.stratum))
        opinion = probability(result.report)
        final = policy.final_score(p12, opinion)
        score = StageScore(
            stage=STAGE,
            score=opinion,
            bundle_version=self._bundle.version,
            model=result.model[:128],
            note="stated confidence, not calibrated" if result.report else result.failure,
        )
        base = _case(media)
        case = CaseFile(
            base.admission,
            base.facts,
            (*base.scores, score),
            (*base.timings, watch.stop()),
            (*base.evidence, *self._keep_trace(result)),
            final,
        )
        if result.report is None:
            return self._verdicts.escalated(case, [reason(result.failure or ReasonCode.UNCERTAIN, result.detail)])
        outcome = policy.stage3_outcome(p12, final, is_authentic(result.report))
        return self._verdicts.decided(case, outcome, explain(outcome, p12, final, result.report))

    def _keep_trace(self, result: VerifyResult) -> tuple[EvidenceRef, ...]:
        """The model's answer as it came, for whoever questions the verdict."""
        if not result.raw_text:
            return ()
        trace = {"model": result.model, "raw_text": result.raw_text, "duration_s": result.duration_s}
        uri, sha256 = self._store.put_evidence(orjson.dumps(trace), ".json")
        return (EvidenceRef(kind="mllm_trace", uri=uri, sha256=sha256),)


def _case(media: AnomalousMedia) -> CaseFile:
    return CaseFile(media.admission, media.facts, media.scores, media.timings, evidence=(media.spectral.panel,))


def is_authentic(report: ForensicReport) -> bool | None:
    """What the verdict says; None for undetermined."""
    if report.hypothesis is Hypothesis.UNDETERMINED:
        return None
    return report.hypothesis is Hypothesis.AUTHENTIC


def probability(report: ForensicReport | None) -> float | None:
    """P(synthetic) as the model states it; it moves the score only where the policy gives it weight."""
    if report is None or report.hypothesis is Hypothesis.UNDETERMINED:
        return None
    return 1.0 - report.confidence if is_authentic(report) else report.confidence


def explain(outcome: Verdict, p12: float, final: float, report: ForensicReport) -> list[Reason]:
    """The numbers behind the outcome, then the model's own words."""
    code = {
        Verdict.BLOCK: ReasonCode.SYNTHETIC_CONFIRMED,
        Verdict.PASS: ReasonCode.AUTHENTIC_CONFIRMED,
        Verdict.ESCALATE: ReasonCode.UNCERTAIN,
    }[outcome]
    numbers = f"final {final:.3f}, before the MLLM {p12:.3f}, model says {report.hypothesis} ({report.confidence:.2f})"
    return [reason(code, numbers), reason(code, report.primary_evidence)]
