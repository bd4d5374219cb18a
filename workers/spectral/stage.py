"""Tier 2: read by sha256, decode, transform, compare with photographs of the same stratum.

Runs in one process a core; only references come in and results go out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.policy import codec_of
from pipeline.detection.spectral.analyser import SpectralAnalyser, SpectralAnalysis
from pipeline.detection.spectral.panel import render_panel
from pipeline.evidence.manifest import SpectralGrounds
from pipeline.media.content_store import open_store
from pipeline.media.decode import DecodedImage, decode_image
from pipeline.media.errors import ContentCorrupt, ContentMissing, MediaError, StoreUnavailable
from pipeline.media.store_settings import StoreSettings
from pipeline.streaming.stage import Defer, DeferScope, Emit, GiveUpCause, Item, Outcome, Output
from schemas.decision import ReasonCode, Risk
from schemas.media import AnomalousMedia, EvidenceRef, SpectralFinding, StageScore, SuspectMedia
from schemas.topics import Topic
from schemas.types import Priority, StageName
from workers.spectral.settings import SpectralSettings
from workers.verdicts import CaseFile, Stopwatch, Verdicts, below_t2, classifier_score, expired, reason

STAGE = StageName.SPECTRAL


class SpectralStage:
    """See Stage. Made in the process that runs it."""

    def __init__(self, bundle_path: Path | None, settings: SpectralSettings, store: StoreSettings) -> None:
        """Loads and verifies the bundle, opens the store; raises what `open_store` does."""
        self._bundle = Bundle.load(bundle_path)
        self._settings = settings
        self._store = open_store(store)
        self._verdicts = Verdicts(STAGE, self._bundle.policy, self._store)
        entry = self._bundle.manifest.spectral
        if entry is None:
            raise BundleError(f"{self._bundle.directory}: has no spectral reference; train one, then `bundle seal`")
        self._model = f"spectral/{entry.file}"
        self._reference = self._bundle.path(entry.file)
        self._analyser: SpectralAnalyser | None = None

    def open(self) -> None:
        """See Stage. One thread each: the parallelism is over images."""
        cv2.setNumThreads(1)
        self._analyser = SpectralAnalyser(self._reference)

    def process(self, batch: Sequence[Item[SuspectMedia]]) -> Sequence[Outcome]:
        """See Stage."""
        return [self._one(item) for item in batch]

    def close(self) -> None:
        """See Stage."""
        self._analyser = None

    def _one(self, item: Item[SuspectMedia]) -> Outcome:
        suspect = item.value
        watch = Stopwatch(STAGE, item)
        case = CaseFile(suspect.admission, suspect.facts, suspect.scores, suspect.timings)
        if expired(suspect.admission):
            return self._verdicts.escalated(case.timed(watch.stop()), [reason(ReasonCode.EXPIRED)])
        try:
            data = self._store.get(suspect.admission.tenant, suspect.facts.sha256)
            image = decode_image(data, self._settings.decode)
            return self._analyse(item, image, watch)
        except StoreUnavailable as error:
            return Defer(DeferScope.DEPENDENCY, f"content store: {error}")
        except (ContentMissing, ContentCorrupt) as error:
            return self._verdicts.escalated(case.timed(watch.stop()), [reason(ReasonCode.CONTENT_MISSING, str(error))])
        except MediaError as error:
            return self._verdicts.escalated(case.timed(watch.stop()), [reason(error.code, error.detail)])

    def _analyse(self, item: Item[SuspectMedia], image: DecodedImage, watch: Stopwatch) -> Outcome:
        assert self._analyser is not None  # noqa: S101 - open() made it
        suspect = item.value
        policy = self._bundle.policy
        analysis = self._analyser.analyse(image)
        score = StageScore(
            stage=STAGE,
            score=analysis.score,
            p_value=analysis.p_value,
            bundle_version=self._bundle.version,
            model=self._model,
            note=(analysis.not_applicable or analysis.stratum)[:128],
        )
        scores = (*suspect.scores, score)
        s1, codec = classifier_score(suspect.scores), codec_of(analysis.stratum)
        p12, stage2 = policy.fuse12(s1, analysis.score, codec), policy.stage2_score(s1, analysis.score, codec)
        if policy.stage2_exit(stage2):
            timings = (*suspect.timings, watch.stop())
            grounds = self._grounds(analysis)
            case = CaseFile(suspect.admission, suspect.facts, scores, timings, final_score=stage2, spectral=grounds)
            detail = below_t2(policy, stage2)
            return self._verdicts.released(case, Risk.LOW_RISK, ReasonCode.ANOMALY_BELOW_T2, detail)
        panel = self._keep_panel(suspect.admission.tenant, image, analysis)
        timings = (*suspect.timings, watch.stop())
        if analysis.score is None:
            grounds = self._grounds(analysis)
            case = CaseFile(suspect.admission, suspect.facts, scores, timings, (panel,), p12, grounds)
            return self._without_spectrum(case, s1, analysis.not_applicable or "")
        finding = SpectralFinding(
            score=analysis.score,
            p_value=analysis.p_value,
            stratum=analysis.stratum,
            top_features=analysis.top_features(self._settings.top_features),
            panel=panel,
        )
        anomalous = AnomalousMedia(
            admission=suspect.admission, facts=suspect.facts, spectral=finding, scores=scores, timings=timings
        )
        first = policy.priority_lane(p12) or suspect.admission.priority is Priority.HIGH
        topic = Topic.ANOMALOUS_PRIORITY if first else Topic.ANOMALOUS
        return Emit((Output(topic, CaseFile(suspect.admission).key, anomalous),))

    def _without_spectrum(self, case: CaseFile, s1: float | None, why: str) -> Outcome:
        """Neither real nor synthetic: the classifier decides alone, and the reason says so."""
        code = ReasonCode.SPECTRAL_NOT_APPLICABLE
        if self._bundle.policy.alone_exit(s1):
            return self._verdicts.released(case, Risk.LOW_RISK, code, why)
        return self._verdicts.escalated(case, [reason(code, why)])

    def _grounds(self, analysis: SpectralAnalysis) -> SpectralGrounds:
        return SpectralGrounds(
            score=analysis.score,
            p_value=analysis.p_value,
            stratum=analysis.stratum,
            features=analysis.top_features(self._settings.top_features),
        )

    def _keep_panel(self, tenant: str, image: DecodedImage, analysis: SpectralAnalysis) -> EvidenceRef:
        uri, sha256 = self._store.put_evidence(tenant, render_panel(image, analysis), ".png")
        return EvidenceRef(kind="spectral_panel", uri=uri, sha256=sha256)


class SpectralFallback:
    """See Fallback: what the consumer process decides when no worker process could."""

    def __init__(self, bundle: Bundle, store: StoreSettings) -> None:
        """Only the policy is needed of the bundle; raises what `open_store` does."""
        self._verdicts = Verdicts(STAGE, bundle.policy, open_store(store))

    def __call__(self, item: Item[SuspectMedia], cause: GiveUpCause, detail: str) -> Outcome:
        """Escalate with what the classifier measured."""
        suspect = item.value
        case = CaseFile(suspect.admission, suspect.facts, suspect.scores, suspect.timings)
        return self._verdicts.given_up(case, [reason(ReasonCode(cause.value), detail)])
