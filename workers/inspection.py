"""One image through all stages on this machine, without Kafka: what `mediasieve inspect` runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.classifier.classifier import Classifier
from pipeline.detection.classifier.preprocess import crops
from pipeline.detection.mllm.backends.base import VerifyRequest, VerifyResult
from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.detection.mllm.trace import Trace
from pipeline.detection.policy import codec_of
from pipeline.detection.spectral.analyser import SpectralAnalyser, SpectralAnalysis
from pipeline.detection.spectral.panel import render_panel
from pipeline.media.decode import DecodedImage, decode_image
from pipeline.media.errors import MediaError
from schemas.decision import Outcome, ReasonCode, Risk
from schemas.media import StageScore
from schemas.types import StageName
from workers.mllm.conclusion import conclude
from workers.mllm.worker import make_verifier
from workers.settings import Settings
from workers.verdicts import below_t2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the fleet would decide, and where."""

    outcome: Outcome
    stage_exited: StageName
    reason: ReasonCode
    detail: str
    risk: Risk | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the stages said of one file. Scores are P(synthetic); None: not asked, or nothing to say."""

    path: Path
    verdict: Verdict
    image: DecodedImage | None = None
    classifier: float | None = None
    stage2: float | None = None
    fused: float | None = None
    analysis: SpectralAnalysis | None = None
    mllm: float | None = None
    panel: Path | None = None
    trace: Trace | None = None

    def as_json(self) -> dict[str, Any]:
        """One line of `inspect --json`."""
        facts = self.image.facts.model_dump(mode="json") if self.image else None
        spectral = self.analysis
        return {
            "path": str(self.path),
            "scores": {
                "classifier": self.classifier,
                "spectral": spectral.score if spectral else None,
                "stage2": self.stage2,
                "mllm": self.mllm,
                "fused": self.fused,
            },
            "stage_exited": self.verdict.stage_exited.value,
            "outcome": self.verdict.outcome.value,
            "risk": self.verdict.risk.value if self.verdict.risk else None,
            "reason": self.verdict.reason.value,
            "detail": self.verdict.detail,
            "facts": facts,
            "p_value": spectral.p_value if spectral else None,
            "stratum": spectral.stratum if spectral else None,
            "not_applicable": spectral.not_applicable if spectral else None,
            "features": [f.model_dump(mode="json") for f in spectral.features] if spectral else [],
            "panel": str(self.panel) if self.panel else None,
            "trace": self.trace.in_full() if self.trace else None,
        }


class Inspector:
    """Holds the models; `inspect` is one file."""

    def __init__(self, settings: Settings, panel_directory: Path, *, all_stages: bool) -> None:
        """Loads the bundle; raises BundleError when it must not be used."""
        self._limits = settings.classifier.decode
        self._bundle = Bundle.load(settings.bundle)
        entry = self._bundle.manifest.spectral
        if entry is None:
            raise BundleError(f"{self._bundle.directory}: has no spectral reference; train one, then `bundle seal`")
        self._classifier = Classifier(self._bundle, settings.classifier.backend, settings.classifier.batching)
        self._analyser = SpectralAnalyser(self._bundle.path(entry.file))
        self._verifier = make_verifier(settings.mllm, self._bundle)
        self._panels = panel_directory
        self._all_stages = all_stages

    def open(self) -> None:
        """Load the models."""
        self._panels.mkdir(parents=True, exist_ok=True)
        self._classifier.open()
        self._verifier.open()

    def close(self) -> None:
        """Give them back."""
        self._verifier.close()
        self._classifier.close()

    def inspect(self, path: Path) -> Inspection:
        """Decide as the fleet would; with `all_stages` every stage is asked, whatever the thresholds say.

        Raises:
            OSError: the file cannot be read.
        """
        data = path.read_bytes()
        policy = self._bundle.policy
        try:
            image = decode_image(data, self._limits)
        except MediaError as error:
            return Inspection(path, Verdict(Outcome.ESCALATE, StageName.CLASSIFIER, error.code, error.detail))
        s1 = self._classifier.score(crops(image.rgb, self._classifier.crop_spec))
        if policy.stage1_exit(s1) and not self._all_stages:
            return Inspection(path, self._verdict(s1, None, None), image, s1, fused=s1)
        analysis = self._analyser.analyse(image)
        png = render_panel(image, analysis)
        panel = self._panels / f"{path.stem}.{image.facts.sha256[:8]}.spectral.png"
        panel.write_bytes(png)
        codec = codec_of(analysis.stratum)
        fused, stage2 = policy.fuse12(s1, analysis.score, codec), policy.stage2_score(s1, analysis.score, codec)
        goes_on = stage2 is not None and not policy.stage1_exit(s1) and not policy.stage2_exit(stage2)
        asked = self._ask(data, image, s1, analysis, png) if goes_on or self._all_stages else None
        result = asked if isinstance(asked, VerifyResult) else None
        final = conclude(policy, fused, result).final if result else fused
        opinion = result.opinion.probability if result and result.opinion else None
        verdict, trace = self._verdict(s1, analysis, asked), result.trace if result else None
        return Inspection(path, verdict, image, s1, stage2, final, analysis, opinion, panel, trace)

    def _verdict(
        self, s1: float, analysis: SpectralAnalysis | None, result: VerifyResult | ServerUnavailable | None
    ) -> Verdict:
        policy, t = self._bundle.policy, self._bundle.policy.thresholds
        if policy.stage1_exit(s1) or analysis is None:
            below = f"classifier {s1:.3f} < T1 {t.t1}"
            return Verdict(Outcome.PASS, StageName.CLASSIFIER, ReasonCode.SCORE_BELOW_T1, below, Risk.RELEASED)
        if analysis.score is None:
            why, code = analysis.not_applicable or "", ReasonCode.SPECTRAL_NOT_APPLICABLE
            if policy.alone_exit(s1):
                return Verdict(Outcome.PASS, StageName.SPECTRAL, code, why, Risk.LOW_RISK)
            return Verdict(Outcome.ESCALATE, StageName.SPECTRAL, code, why)
        codec = codec_of(analysis.stratum)
        stage2 = policy.stage2_score(s1, analysis.score, codec)
        if policy.stage2_exit(stage2):
            below = below_t2(policy, stage2)
            return Verdict(Outcome.PASS, StageName.SPECTRAL, ReasonCode.ANOMALY_BELOW_T2, below, Risk.LOW_RISK)
        if isinstance(result, ServerUnavailable):
            return Verdict(Outcome.ESCALATE, StageName.MLLM, result.code, str(result))
        assert result is not None  # noqa: S101 - what reaches stage 3 was asked about
        conclusion = conclude(policy, policy.fuse12(s1, analysis.score, codec), result)
        first = conclusion.reasons[0]
        risk = Risk.CLEARED if conclusion.outcome is Outcome.PASS else None
        return Verdict(conclusion.outcome, StageName.MLLM, first.code, first.detail, risk)

    def _ask(
        self, data: bytes, image: DecodedImage, s1: float, analysis: SpectralAnalysis, panel: bytes
    ) -> VerifyResult | ServerUnavailable:
        scores = tuple(
            StageScore(stage=stage, score=score, bundle_version=self._bundle.version, model="inspect")
            for stage, score in ((StageName.CLASSIFIER, s1), (StageName.SPECTRAL, analysis.score))
        )
        request = VerifyRequest(
            original=data,
            original_content_type=f"image/{image.facts.format}",
            panel_png=panel,
            features=analysis.top_features(8),
            stratum=analysis.stratum,
            scores=scores,
            width=image.facts.width,
            height=image.facts.height,
        )
        try:
            return self._verifier.verify(request)
        except ServerUnavailable as error:
            return error
