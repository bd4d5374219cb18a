"""The numbers that turn scores into outcomes, and the pure functions that apply them.

Every score is P(synthetic) at the prior of the fusion. What is missing or not a number never passes: a comparison
that would release media is false for it.

Two modes. `strict` is a cascade: the classifier releases below T1, and of the rest the spectral stage releases
below T2 by its own score, calibrated on what the classifier lets through. `fused`: T1 is near 0, so that the
spectral stage sees nearly all, and releases below T2 by the fusion of both scores.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.detection.calibration import Calibration, logit, sigmoid
from schemas.decision import Mode, Outcome, Thresholds
from schemas.types import ShortText, Text, Version

DEFAULT_THRESHOLDS = Thresholds(
    t1=0.30, priority=0.75, t2=0.55, t3_block=0.80, t3_clear=0.20, p12_block=0.60, uncertain=0.50
)

_SETTINGS = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PolicyError(Exception):
    """A policy file that cannot be used; the text names file and field."""


class FusionWeights(BaseModel):
    """The logit of both stages together: w1 logit(s1) + w2 logit(s2) + bias.

    No weight is negative, so a higher score of a stage never lowers it.
    """

    model_config = _SETTINGS

    w1: Annotated[float, Field(ge=0.0, le=4.0, description="weight of the classifier's logit")] = 0.5
    w2: Annotated[float, Field(ge=0.0, le=4.0, description="weight of the spectral logit")] = 0.5
    bias: Annotated[float, Field(ge=-10.0, le=10.0, description="added when both stages speak")] = 0.0


class Fusion(FusionWeights):
    """How stage scores are added: as logits, the MLLM's share bounded."""

    by_codec: Annotated[
        dict[ShortText, FusionWeights],
        Field(description="weights of single codec buckets, such as jpeg_85_94; the others use w1, w2 and bias"),
    ] = {}
    stage2: Annotated[
        Calibration | None,
        Field(description="makes the spectral logit P(synthetic) among what reaches stage 2 in strict mode"),
    ] = None
    prior: Annotated[float, Field(gt=0.0, lt=1.0, description="P(synthetic) before any stage spoke")] = 0.5
    mllm_weight: Annotated[float, Field(ge=0.0, le=4.0, description="weight of the MLLM's logit; 0 until measured")] = (
        0.0
    )
    mllm_clip: Annotated[
        tuple[Annotated[float, Field(ge=-10.0, le=0.0)], Annotated[float, Field(ge=0.0, le=10.0)]],
        Field(description="lowest and highest shift of the logit by the MLLM"),
    ] = (-1.75, 1.0)


class Policy(BaseModel):
    """One versioned policy file."""

    model_config = _SETTINGS

    version: Version
    mode: Annotated[Mode, Field(description="which score stage 2 decides by")] = Mode.STRICT
    provisional: Annotated[
        Text | None, Field(description="why the thresholds are not supported by the sample they come from")
    ] = None
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    fusion: Fusion = Fusion()

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> Self:
        t = self.thresholds
        for low, high in (
            ("t1", "priority"),
            ("t3_clear", "uncertain"),
            ("uncertain", "t3_block"),
            ("p12_block", "t3_block"),
        ):
            if getattr(t, low) > getattr(t, high):
                raise ValueError(f"thresholds.{low} {getattr(t, low)} exceeds {high} {getattr(t, high)}")
        if t.t3_clear == t.t3_block:
            raise ValueError(f"thresholds.t3_clear and t3_block are both {t.t3_block}; nothing could escalate")
        if self.mode is Mode.STRICT and t.t1_alone is not None:
            raise ValueError("thresholds.t1_alone: only for mode fused; in strict mode t1 is that threshold")
        return self

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read `policy.json`.

        Raises:
            PolicyError: unreadable or invalid, with the field.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise PolicyError(f"{path}: {error}") from error

    def fuse12(self, s1: float | None, s2: float | None, codec: str = "") -> float:
        """P(synthetic) after the stages that see pixels: sigmoid(w1 logit(s1) + w2 logit(s2) + bias).

        One score missing: the other unchanged. Both missing: the prior.

        Args:
            s1: the classifier's score.
            s2: the spectral score.
            codec: bucket whose weights apply, see `codec_of`; one without weights of its own uses the common ones.

        Raises:
            ValueError: a score that is not within [0, 1], NaN included.
        """
        logits = [None if s is None else logit(s) for s in (s1, s2)]
        if logits[0] is None or logits[1] is None:
            return next((s for s in (s1, s2) if s is not None), self.fusion.prior)
        weights = self.fusion.by_codec.get(codec, self.fusion)
        return sigmoid(weights.w1 * logits[0] + weights.w2 * logits[1] + weights.bias)

    def stage2_score(self, s1: float | None, s2: float | None, codec: str = "") -> float | None:
        """What stage 2 compares with T2: strict, the calibrated spectral score; fused, `fuse12`.

        None when the spectrum says nothing, and in fused mode when the classifier said nothing: T2 belongs to both.

        Raises:
            ValueError: a score that is not within [0, 1], NaN included.
        """
        if s2 is None:
            return None
        if self.mode is Mode.FUSED:
            return None if s1 is None else self.fuse12(s1, s2, codec)
        raw, calibration = logit(s2), self.fusion.stage2
        return calibration.probability(raw) if calibration else s2

    def final_score(self, p12: float, mllm_probability: float | None) -> float:
        """P(synthetic) after the MLLM, which moves the logit of `p12` by no more than `mllm_clip`.

        Raises:
            ValueError: a probability that is not within [0, 1], NaN included.
        """
        low, high = self.fusion.mllm_clip
        start = logit(p12)
        if mllm_probability is None:
            return p12
        opinion = self.fusion.mllm_weight * logit(mllm_probability)
        return sigmoid(start + min(max(opinion, low), high)) if self.fusion.mllm_weight else p12

    def stage1_exit(self, score: float | None) -> bool:
        """True: the classifier's score is below T1 and the media passes; a score of T1 itself does not."""
        return score is not None and score < self.thresholds.t1

    def priority_lane(self, score: float | None) -> bool:
        """True: suspect enough to be looked at first."""
        return score is not None and score >= self.thresholds.priority

    def stage2_exit(self, score: float | None) -> bool:
        """True: the score is below T2 and the media passes; a score of T2 itself does not."""
        return score is not None and score < self.thresholds.t2

    def alone_exit(self, score: float | None) -> bool:
        """True: the classifier's score alone releases media whose spectrum says nothing.

        Strict: below T1, so never at stage 2, where every score is T1 or more. Fused: below `t1_alone`.
        """
        t = self.thresholds
        return score is not None and score < (t.t1 if t.t1_alone is None else t.t1_alone)

    def may_block(self, p12: float | None) -> bool:
        """True: stage 3 would block if the MLLM named a generator as surely as it can. The worst case for a photograph.

        Raises:
            ValueError: a score that is not within [0, 1], NaN included.
        """
        return p12 is not None and self.stage3_outcome(p12, self.final_score(p12, 1.0), False) is Outcome.BLOCK

    def stage3_outcome(self, p12: float | None, final: float | None, verdict_authentic: bool | None) -> Outcome:
        """Block or pass only where scores and verdict agree; everything else escalates.

        Args:
            p12: P(synthetic) of the stages that see pixels; the MLLM alone can never block.
            final: P(synthetic) after the MLLM.
            verdict_authentic: whether the MLLM calls the media authentic; None without a valid verdict.
        """
        if p12 is None or final is None or verdict_authentic is None or math.isnan(p12) or math.isnan(final):
            return Outcome.ESCALATE
        t = self.thresholds
        if final >= t.t3_block and p12 >= t.p12_block and not verdict_authentic:
            return Outcome.BLOCK
        if final <= t.t3_clear and verdict_authentic:
            return Outcome.PASS
        return Outcome.ESCALATE


def codec_of(stratum: str) -> str:
    """The codec bucket of a stratum: `jpeg_85_94` of `jpeg_85_94/384_767`."""
    return stratum.partition("/")[0]
