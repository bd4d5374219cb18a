"""What a policy would decide on scores that are already there, and where it would need more than there is.

The cascade stops early, so a score of a later stage exists only where the rules that decided let the media go on. A
policy that would have looked further is told apart: `Unknown`, never a guess. What a model said beyond its score is
not in a decision either; where it matters, every answer that is possible is tried, and only what follows from all of
them is given.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.detection.policy import Policy, codec_of
from schemas.decision import Decision, Outcome, Risk
from schemas.media import StageScore
from schemas.types import StageName

NOT_REPRODUCIBLE = "not_reproducible"


@dataclass(frozen=True, slots=True)
class Known:
    """A verdict that follows."""

    outcome: Outcome
    stage: StageName
    risk: Risk | None = None

    @property
    def name(self) -> str:
        """As a SIEM's event code: `block`, `escalate` or `pass.<risk>`."""
        return f"{self.outcome}.{self.risk}" if self.risk else self.outcome.value


@dataclass(frozen=True, slots=True)
class Unknown:
    """What the policy would decide cannot be told without looking at the pixels again; `stage` would have to look."""

    stage: StageName
    why: str

    @property
    def name(self) -> str:
        """In reports."""
        return NOT_REPRODUCIBLE


Walk = Known | Unknown


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a media item: who decided what, and the scores to walk with."""

    outcome: Outcome
    stage_exited: StageName
    risk: Risk | None
    scores: tuple[StageScore, ...]

    @classmethod
    def of(cls, decision: Decision) -> Seen:
        """With the scores that the decision was made on."""
        return cls(decision.outcome, decision.stage_exited, decision.risk, decision.scores)

    @property
    def verdict(self) -> Known:
        """What was decided."""
        return Known(self.outcome, self.stage_exited, self.risk)

    def of_stage(self, stage: StageName) -> StageScore | None:
        """What a stage measured; None where it measured nothing."""
        return next((s for s in self.scores if s.stage is stage), None)


def walk(policy: Policy, seen: Seen) -> Walk:
    """Apply the policy from the first stage on.

    A failure of a stage (media that cannot be decoded, a model server that is away) is no matter of thresholds: where
    the policy comes to that stage, it escalates as before.
    """
    first = seen.of_stage(StageName.CLASSIFIER)
    if first is None:
        return _same_or_unknown(seen, StageName.CLASSIFIER)
    if policy.stage1_exit(first.score):
        return Known(Outcome.PASS, StageName.CLASSIFIER, Risk.RELEASED)
    second = seen.of_stage(StageName.SPECTRAL)
    if second is None:
        return _same_or_unknown(seen, StageName.SPECTRAL)
    return _second(policy, first, second, seen)


def _second(policy: Policy, first: StageScore, second: StageScore, seen: Seen) -> Walk:
    if second.score is None:
        alone = policy.alone_exit(first.score)
        return Known(Outcome.PASS if alone else Outcome.ESCALATE, StageName.SPECTRAL, Risk.LOW_RISK if alone else None)
    codec = codec_of(second.note or "")
    if policy.stage2_exit(policy.stage2_score(first.score, second.score, codec)):
        return Known(Outcome.PASS, StageName.SPECTRAL, Risk.LOW_RISK)
    third = seen.of_stage(StageName.MLLM)
    if third is None:
        return _same_or_unknown(seen, StageName.MLLM)
    return _third(policy, policy.fuse12(first.score, second.score, codec), third, seen)


def _same_or_unknown(seen: Seen, needed: StageName) -> Walk:
    """No score of that stage: it failed there and escalates again, or the media never came so far."""
    if seen.stage_exited is needed and seen.outcome is Outcome.ESCALATE:
        return seen.verdict
    return Unknown(needed, f"decided at the {seen.stage_exited} stage; the {needed} stage has no score of it")


def _third(policy: Policy, p12: float, third: StageScore, seen: Seen) -> Walk:
    outcomes = {
        policy.stage3_outcome(p12, policy.final_score(p12, heard), authentic)
        for heard in {None, third.score}
        for authentic in _possible_answers(third, seen)
    }
    if len(outcomes) > 1:
        names = ", ".join(sorted(outcomes))
        return Unknown(StageName.MLLM, f"depends on the model's answer, which a decision does not hold: {names}")
    (outcome,) = outcomes
    return Known(outcome, StageName.MLLM, Risk.CLEARED if outcome is Outcome.PASS else None)


def _possible_answers(third: StageScore, seen: Seen) -> tuple[bool | None, ...]:
    """Whether the model called the media authentic, as far as the decision shows it.

    Only a verdict that names a generator blocks, only an authentic one clears. Without an opinion there was no valid
    report, and what has no report escalates under every policy.
    """
    if seen.outcome is Outcome.BLOCK:
        return (False,)
    if seen.outcome is Outcome.PASS:
        return (True,)
    return (None,) if third.score is None else (None, True, False)
