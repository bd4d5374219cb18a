"""The numbers that turn scores into outcomes, and the pure functions that apply them.

Every score is P(synthetic). What is missing or not a number never passes: a comparison that would release
media is false for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.detection.calibration import logit, sigmoid
from schemas.decision import Outcome, Thresholds
from schemas.types import Version

DEFAULT_THRESHOLDS = Thresholds(
    t1=0.30, priority=0.75, t2=0.55, t3_block=0.80, t3_clear=0.20, p12_block=0.60, uncertain=0.50
)

_SETTINGS = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PolicyError(Exception):
    """A policy file that cannot be used; the text names file and field."""


class Fusion(BaseModel):
    """How stage scores are added: as logits, the MLLM's share bounded."""

    model_config = _SETTINGS

    w1: Annotated[float, Field(ge=0.0, le=4.0, description="weight of the classifier's logit")] = 0.5
    w2: Annotated[float, Field(ge=0.0, le=4.0, description="weight of the spectral logit")] = 0.5
    bias: Annotated[float, Field(ge=-10.0, le=10.0, description="added when both stages speak")] = 0.0
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

    def fuse12(self, s1: float | None, s2: float | None) -> float:
        """P(synthetic) after the stages that see pixels: sigmoid(w1 logit(s1) + w2 logit(s2) + bias).

        One score missing: the other unchanged. Both missing: the prior.

        Raises:
            ValueError: a score that is not within [0, 1], NaN included.
        """
        logits = [None if s is None else logit(s) for s in (s1, s2)]
        if logits[0] is None or logits[1] is None:
            return next((s for s in (s1, s2) if s is not None), self.fusion.prior)
        return sigmoid(self.fusion.w1 * logits[0] + self.fusion.w2 * logits[1] + self.fusion.bias)

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
