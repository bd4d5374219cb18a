"""Tier 2: read by sha256, decode, transform, compare with photographs of the same stratum.

Runs in one process a core; only references come in and results go out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.policy import codec_of
from pipeline.detection.shadow import Shadow
from pipeline.detection.shadow_settings import ShadowSettings
from pipeline.detection.spectral.analyser import SpectralAnalyser, SpectralAnalysis
from pipeline.detection.spectral.panel import render_panel
from pipeline.evidence.manifest import SpectralGrounds
from pipeline.media.content_store import open_store
from pipeline.media.decode import DecodedImage, decode_image
from pipeline.media.errors import ContentCorrupt, ContentMissing, MediaError, StoreUnavailable
from pipeline.media.store_settings import StoreSettings
from pipeline.streaming.stage import Defer, DeferScope, Emit, GiveUpCause, Item, Outcome, Output
from pipeline.streaming.steps import step, with_steps
from schemas.decision import ReasonCode, Risk
from schemas.media import AnomalousMedia, EvidenceRef, SpectralFinding, StageScore, SuspectMedia
from schemas.topics import Topic
from schemas.types import Priority, StageName
from workers.spectral.references import NamedAnalyser, References
from workers.spectral.settings import SpectralSettings
from workers.spectral.shadow import SpectralShadow
from workers.verdicts import CaseFile, Stopwatch, Verdicts, below_t2, classifier_score, expired, reason

STAGE = StageName.SPECTRAL


class SpectralStage:
    """See Stage. Made in the process that runs it."""

    def __init__(
        self,
        bundle_path: Path | None,
        settings: SpectralSettings,
        store: StoreSettings,
        shadow: ShadowSettings | None = None,
    ) -> None:
        """Loads and verifies the bundle, opens the store; raises what `open_store` does."""
        self._bundle = Bundle.load(bundle_path)
        self._settings = settings
        self._store = open_store(store)
        self._shadow = SpectralShadow(shadow or ShadowSettings(), self._bundle)
        self._verdicts = Verdicts(STAGE, self._bundle.policy, self._store, self._shadow.rules)
        entry = self._bundle.manifest.spectral
        if entry is None:
            raise BundleError(f"{self._bundle.directory}: has no spectral reference; train one, then `bundle seal`")
        self._own_model = self._model = f"spectral/{entry.file}"
        self._reference = self._bundle.path(entry.file)
        self._analyser: SpectralAnalyser | None = None
        self._candidate: NamedAnalyser | None = None
        self._references = References()

    def open(self) -> None:
        """See Stage. One thread each: the parallelism is over images."""
        cv2.setNumThreads(1)
        self._analyser, self._model = SpectralAnalyser(self._reference), self._own_model
        self._candidate, self._references = None, References()
        self._shadow.open()

    def adopt(self, value: References) -> None:
        """See Adopting. Raises SpectralReferenceError when a file no longer holds what it held."""
        if value == self._references:
            return
        if value.active is None:
            self._analyser, self._model = SpectralAnalyser(self._reference), self._own_model
        else:
            found = NamedAnalyser.of(value.active)
            self._analyser, self._model = found.analyser, found.model
        self._candidate = NamedAnalyser.of(value.candidate) if value.candidate is not None else None
        self._references = value

    def process(self, batch: Sequence[Item[SuspectMedia]]) -> Sequence[Outcome]:
        """See Stage."""
        return [with_steps(self._one, item) for item in batch]

    def close(self) -> None:
        """See Stage."""
        self._shadow.close()
        self._analyser = self._candidate = None

    def _one(self, item: Item[SuspectMedia]) -> Outcome:
        suspect = item.value
        watch = Stopwatch(STAGE, item)
        case = arrived(suspect)
        if expired(suspect.admission):
            return self._verdicts.escalated(case.timed(watch.stop()), [reason(ReasonCode.EXPIRED)])
        try:
            with step("read"):
                data = self._store.get(suspect.admission.tenant, suspect.facts.sha256)
            with step("decode"):
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
        with step("infer"):
            analysis = self._analyser.analyse(image)
        score = StageScore(
            stage=STAGE,
            score=analysis.score,
            p_value=analysis.p_value,
            bundle_version=self._bundle.version,
            model=self._model,
            note=(analysis.not_applicable or analysis.stratum)[:128],
            candidate=self._candidate.score(analysis) if self._candidate is not None else None,
        )
        scores = (*suspect.scores, score)
        s1, codec = classifier_score(suspect.scores), codec_of(analysis.stratum)
        p12, stage2 = policy.fuse12(s1, analysis.score, codec), policy.stage2_score(s1, analysis.score, codec)
        measured = replace(arrived(suspect), scores=scores)
        if policy.stage2_exit(stage2):
            case = replace(measured.timed(watch.stop()), final_score=stage2, spectral=self._grounds(analysis))
            case = self._shadowed(case, image)
            detail = below_t2(policy, stage2)
            return self._verdicts.released(case, Risk.LOW_RISK, ReasonCode.ANOMALY_BELOW_T2, detail)
        panel = self._keep_panel(suspect.admission.tenant, image, analysis)
        measured = self._shadowed(measured.timed(watch.stop()), image)
        if analysis.score is None:
            case = replace(measured, evidence=(panel,), final_score=p12, spectral=self._grounds(analysis))
            return self._without_spectrum(case, s1, analysis.not_applicable or "")
        finding = SpectralFinding(
            score=analysis.score,
            p_value=analysis.p_value,
            stratum=analysis.stratum,
            top_features=analysis.top_features(self._settings.top_features),
            panel=panel,
        )
        anomalous = AnomalousMedia(
            admission=suspect.admission,
            facts=suspect.facts,
            spectral=finding,
            scores=scores,
            timings=measured.timings,
            audit=suspect.audit,
            shadow=measured.shadow,
        )
        wanted = policy.priority_lane(p12) or suspect.admission.priority is Priority.HIGH
        first = wanted and suspect.audit is None  # a sample takes nobody's turn
        topic = Topic.ANOMALOUS_PRIORITY if first else Topic.ANOMALOUS
        return Emit((Output(topic, CaseFile(suspect.admission).key, anomalous),))

    def _shadowed(self, case: CaseFile, image: DecodedImage) -> CaseFile:
        """After the live stage's time was taken."""
        return replace(case, shadow=self._shadow.trail(case.shadow, image))

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
        with step("panel"):
            panel = render_panel(image, analysis)
        with step("store"):
            uri, sha256 = self._store.put_evidence(tenant, panel, ".png")
        return EvidenceRef(kind="spectral_panel", uri=uri, sha256=sha256)


def arrived(suspect: SuspectMedia) -> CaseFile:
    """What is known of media before stage 2 looks at it."""
    return CaseFile(
        suspect.admission,
        suspect.facts,
        suspect.scores,
        suspect.timings,
        audit=suspect.audit,
        shadow=suspect.shadow,
    )


class SpectralFallback:
    """See Fallback: what the consumer process decides when no worker process could."""

    def __init__(self, bundle: Bundle, store: StoreSettings, shadow: Shadow | None = None) -> None:
        """Only the policy is needed of the bundle; raises what `open_store` does."""
        self._verdicts = Verdicts(STAGE, bundle.policy, open_store(store), shadow)

    def __call__(self, item: Item[SuspectMedia], cause: GiveUpCause, detail: str) -> Outcome:
        """Escalate with what the classifier measured."""
        suspect = item.value
        case = arrived(suspect)
        return self._verdicts.given_up(case, [reason(ReasonCode(cause.value), detail)])
