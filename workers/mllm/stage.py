"""Tier 3: a model sees image and spectral panel together; its opinion is bounded, its reasoning is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import orjson

from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.backends.base import Verifier, VerifyRequest, VerifyResult
from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.detection.mllm.trace import Trace
from pipeline.detection.policy import codec_of
from pipeline.detection.shadow import Shadow
from pipeline.detection.shadow_settings import ShadowSettings
from pipeline.evidence.manifest import SpectralGrounds
from pipeline.media.content_store import open_store
from pipeline.media.errors import ContentCorrupt, ContentMissing, StoreUnavailable
from pipeline.media.store_settings import StoreSettings
from pipeline.streaming.stage import Defer, DeferScope, GiveUpCause, Item, Outcome
from pipeline.streaming.steps import step, with_steps
from schemas.decision import ReasonCode
from schemas.media import AnomalousMedia, EvidenceRef, StageScore
from schemas.types import StageName
from workers.mllm.conclusion import conclude
from workers.mllm.shedding import gave_up, shed, too_old, waiting
from workers.verdicts import CaseFile, Stopwatch, Verdicts, classifier_score, expired, reason

STAGE = StageName.MLLM


class MllmStage:
    """See Stage. Thread-safe as its verifier is."""

    def __init__(
        self,
        bundle: Bundle,
        verifier: Verifier,
        store: StoreSettings,
        *,
        max_wait_s: float = math.inf,
        max_age_s: float = math.inf,
        shadow: ShadowSettings | None = None,
    ) -> None:
        """Opens the store and nothing else; raises what `open_store` and `Shadow.load` do.

        `max_wait_s`: see `shedding.shed`; `max_age_s`: see `shedding.too_old`.
        """
        self._bundle = bundle
        self._max_wait_s = max_wait_s
        self._max_age_s = max_age_s
        self._verifier = verifier
        self._store = open_store(store)
        rules = Shadow.load(shadow or ShadowSettings(), bundle)
        self._verdicts = Verdicts(STAGE, bundle.policy, self._store, rules)

    def open(self) -> None:
        """See Stage."""
        self._verifier.open()

    def process(self, batch: Sequence[Item[AnomalousMedia]]) -> Sequence[Outcome]:
        """See Stage."""
        return [with_steps(self._one, item) for item in batch]

    def close(self) -> None:
        """See Stage."""
        self._verifier.close()

    def fallback(self, item: Item[AnomalousMedia], cause: GiveUpCause, detail: str) -> Outcome:
        """See Fallback."""
        code = gave_up(detail) or ReasonCode(cause.value)
        return self._verdicts.given_up(_case(item.value), [reason(code, detail)])

    def _one(self, item: Item[AnomalousMedia]) -> Outcome:
        media = item.value
        case = _case(media)
        watch = Stopwatch(STAGE, item)
        if expired(media.admission):
            return self._verdicts.escalated(case.timed(watch.stop()), [reason(ReasonCode.EXPIRED)])
        overloaded = too_old(item, self._max_age_s)
        if overloaded:
            return self._verdicts.escalated(case.timed(watch.stop()), [overloaded])
        try:
            with step("read"):
                request = self._request(media)
            with step("infer"):
                result = self._verifier.verify(request)
            return self._conclude(media, result, watch)
        except ServerUnavailable as error:
            given_up = shed(item, error, self._max_wait_s)
            return self._verdicts.escalated(case.timed(watch.stop()), [given_up]) if given_up else waiting(error)
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
            panel_sha256=panel.sha256,
        )

    def _conclude(self, media: AnomalousMedia, result: VerifyResult, watch: Stopwatch) -> Outcome:
        policy = self._bundle.policy
        p12 = policy.fuse12(classifier_score(media.scores), media.spectral.score, codec_of(media.spectral.stratum))
        conclusion = conclude(policy, p12, result)
        score = StageScore(
            stage=STAGE,
            score=result.opinion.probability if result.opinion else None,
            bundle_version=self._bundle.version,
            model=result.model[:128],
            note=result.opinion.note if result.opinion else result.failure,
        )
        with step("store"):
            kept = self._keep_trace(media.admission.tenant, result.trace) if result.trace else ()
        base = _case(media).timed(watch.stop())
        case = replace(
            base,
            scores=(*base.scores, score),
            evidence=(*base.evidence, *kept),
            final_score=conclusion.final,
            dialogue_sha256=result.trace.dialogue_sha256 if result.trace else None,
        )
        return self._verdicts.decided(case, conclusion.outcome, conclusion.reasons)

    def _keep_trace(self, tenant: str, trace: Trace) -> tuple[EvidenceRef, ...]:
        """Each raw answer and the manifest under their own digests, for whoever questions the verdict.

        Stored before the decision is even made, so no decision names what is not there.
        """
        answers = [self._keep(tenant, f"mllm_{turn.name}", turn.raw_bytes, ".txt") for turn in trace.turns]
        manifest = orjson.dumps(trace.manifest([answer.uri for answer in answers]))
        return (*answers, self._keep(tenant, "mllm_trace", manifest, ".json"))

    def _keep(self, tenant: str, kind: str, data: bytes, suffix: str) -> EvidenceRef:
        uri, sha256 = self._store.put_evidence(tenant, data, suffix)
        return EvidenceRef(kind=kind, uri=uri, sha256=sha256)


def _case(media: AnomalousMedia) -> CaseFile:
    found = media.spectral
    grounds = SpectralGrounds(
        score=found.score, p_value=found.p_value, stratum=found.stratum, features=found.top_features
    )
    return CaseFile(
        media.admission,
        media.facts,
        media.scores,
        media.timings,
        evidence=(found.panel,),
        spectral=grounds,
        audit=media.audit,
        shadow=media.shadow,
    )
