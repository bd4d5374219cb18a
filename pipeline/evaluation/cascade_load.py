"""Where labelled images leave the tiers under a policy, and what that means at a prevalence.

Counts every image: one that could not be decoded escalates at stage 1, one without a spectrum is decided by the
classifier alone. What the MLLM will say is not in a scores file, so what follows stage 2 is given as bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pipeline.detection.calibration import Bools, Floats
from pipeline.detection.policy import Policy, codec_of
from pipeline.evaluation.intervals import Interval, cluster_bootstrap
from pipeline.evaluation.score_row import ScoreRow, Status

ROUNDS = 400


class Exit(StrEnum):
    """How an image leaves the stages that see pixels."""

    RELEASED = "released at stage 1"
    FAILED = "escalated at stage 1: not analysable"
    LOW_RISK = "low risk at stage 2"
    ALONE = "low risk at stage 2: no spectrum, released by the classifier"
    NOT_APPLICABLE = "escalated at stage 2: no spectrum"
    STAGE_3 = "reached stage 3"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of a scores file, N images; a missing score is NaN."""

    synthetic: Bools
    s1: Floats
    s2: Floats
    codec: tuple[str, ...]
    source: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[ScoreRow]) -> Table:
        """Read the rows; one that failed has no scores, one that is not applicable no spectral one."""
        labels: list[bool] = []
        s1: list[float] = []
        s2: list[float] = []
        codec: list[str] = []
        source: list[str] = []
        for row in rows:
            labels.append(row.synthetic)
            s1.append(_number(row.classifier if row.status is not Status.FAILED else None))
            s2.append(_number(row.spectral if row.status is Status.SCORED else None))
            codec.append(codec_of(row.stratum))
            source.append(row.source)
        return cls(np.array(labels, bool), np.array(s1), np.array(s2), tuple(codec), tuple(source))

    def stage2_scores(self, policy: Policy) -> Floats:
        """What stage 2 compares with T2, NaN without: exactly what the workers compute."""
        return self._each(policy.stage2_score)

    def fused(self, policy: Policy) -> Floats:
        """P(synthetic) after both stages, NaN where the classifier said nothing."""
        return self._each(lambda s1, s2, codec: None if s1 is None else policy.fuse12(s1, s2, codec))

    def exits(self, policy: Policy, stage2: Floats) -> tuple[Exit, ...]:
        """The way out of every image, given its `stage2_scores`."""
        return tuple(
            _exit(policy, _score(a), _score(b), _score(c))
            for a, b, c in zip(self.s1.tolist(), self.s2.tolist(), stage2.tolist(), strict=True)
        )

    def _each(self, score: Callable[[float | None, float | None, str], float | None]) -> Floats:
        columns = zip(self.s1.tolist(), self.s2.tolist(), self.codec, strict=True)
        return np.array([_number(score(_score(a), _score(b), codec)) for a, b, codec in columns])


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the traffic, and its 95 % interval by a bootstrap over whole sources of each class.

    `interval` is None when a class comes from a single source: nothing can be said of another one.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Load:
    """Shares of the traffic at `prevalence`, the share of generated images in it. Stage 1 sees all.

    `escalated_most`: people see all that reaches stage 3, as without an MLLM. `escalated_least`: the MLLM agrees
    wherever the scores allow a block or a clearance. `blocked_most`: it names a generator wherever that blocks.
    """

    prevalence: float
    stage2: Share
    stage3: Share
    escalated_most: Share
    escalated_least: Share
    blocked_most: Share


def predict(table: Table, exits: Sequence[Exit], p12: Floats, policy: Policy, prevalence: float) -> Load:
    """The load on every stage.

    Args:
        table: the images; both classes are needed.
        exits: their ways out.
        p12: (N,) fused scores, NaN without.
        policy: whose thresholds of stage 3 apply.
        prevalence: share of generated images in the traffic, 0 to 1.
    """
    way = np.asarray(exits, dtype=object)
    third = way == Exit.STAGE_3
    people = third | (way == Exit.FAILED) | (way == Exit.NOT_APPLICABLE)
    block = third & blockable(p12, policy)
    settled = block | (third & (p12 <= policy.thresholds.t3_clear))
    return Load(
        prevalence=prevalence,
        stage2=_share(table, (way != Exit.RELEASED) & (way != Exit.FAILED), prevalence),
        stage3=_share(table, third, prevalence),
        escalated_most=_share(table, people, prevalence),
        escalated_least=_share(table, people & ~settled, prevalence),
        blocked_most=_share(table, block, prevalence),
    )


def blockable(p12: Floats, policy: Policy) -> Bools:
    """Which images would be blocked at stage 3 by an MLLM that is as sure as it can be.

    `Policy.may_block` rises with p12, so that one cut says the same of all.
    """
    scores = np.unique(p12[~np.isnan(p12)])
    low, high = 0, scores.size
    while low < high:
        middle = (low + high) // 2
        if policy.may_block(float(scores[middle])):
            high = middle
        else:
            low = middle + 1
    return p12 >= scores[low] if low < scores.size else np.zeros(p12.shape, bool)


def _share(table: Table, chosen: Bools, prevalence: float) -> Share:
    real, synthetic = chosen[~table.synthetic].astype(np.float64), chosen[table.synthetic].astype(np.float64)

    def share(real_weights: Floats, synthetic_weights: Floats) -> float:
        held = float(real_weights @ real / real_weights.sum())
        return (1.0 - prevalence) * held + prevalence * float(synthetic_weights @ synthetic / synthetic_weights.sum())

    source = np.asarray(table.source)
    interval = cluster_bootstrap(
        share, source[~table.synthetic].tolist(), source[table.synthetic].tolist(), rounds=ROUNDS
    )
    return Share(share(np.ones(len(real)), np.ones(len(synthetic))), interval)


def _exit(policy: Policy, s1: float | None, s2: float | None, stage2: float | None) -> Exit:
    if s1 is None:
        return Exit.FAILED
    if policy.stage1_exit(s1):
        return Exit.RELEASED
    if s2 is None:
        return Exit.ALONE if policy.alone_exit(s1) else Exit.NOT_APPLICABLE
    return Exit.LOW_RISK if policy.stage2_exit(stage2) else Exit.STAGE_3


def _number(score: float | None) -> float:
    return np.nan if score is None else score


def _score(number: float) -> float | None:
    return None if np.isnan(number) else number
