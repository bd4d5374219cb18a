"""The default: no model server was named, so every item goes to a person with what was measured."""

from __future__ import annotations

from pipeline.detection.mllm.backends.base import VerifyRequest, VerifyResult
from schemas.decision import ReasonCode
from schemas.media import Feature, StageScore

_TOP_FEATURES = 8


class UnconfiguredVerifier:
    """Asks no model and gives no verdict: each result is MLLM_UNCONFIGURED and lists the evidence for the reviewer."""

    model = "unconfigured"

    def open(self) -> None:
        """Nothing to take."""

    def verify(self, request: VerifyRequest) -> VerifyResult:
        """The measured evidence as the detail of a failure."""
        return VerifyResult(
            failure=ReasonCode.MLLM_UNCONFIGURED,
            detail=f"no MLLM server is configured; {_evidence(request)}",
            model=self.model,
            duration_s=0.0,
        )

    def close(self) -> None:
        """Nothing to give back."""


def _evidence(request: VerifyRequest) -> str:
    ranked = sorted(request.features, key=_extremeness, reverse=True)[:_TOP_FEATURES]
    scores = ", ".join(map(_score_text, request.scores)) or "none"
    features = ", ".join(map(_feature_text, ranked)) or "none"
    return f"stratum {request.stratum}; scores: {scores}; most unusual features: {features}"


def _extremeness(feature: Feature) -> float:
    """Distance of the percentile from the median; without a percentile nothing is known to be unusual."""
    return -1.0 if feature.percentile is None else abs(feature.percentile - 50.0)


def _score_text(score: StageScore) -> str:
    value = "n/a" if score.score is None else f"{score.score:.3f}"
    return f"{score.stage.value} {value}" + ("" if score.p_value is None else f" (p={score.p_value:.3g})")


def _feature_text(feature: Feature) -> str:
    place = "no percentile" if feature.percentile is None else f"percentile {feature.percentile:.1f}"
    return f"{feature.name}={feature.value:.4g} ({place})"
