"""Which case comes next.

    priority(t) = urgency + (t - opened) / ageing_s
    urgency     = (w_m margin + w_d disagreement + w_s severity) / (w_m + w_d + w_s)      in [0, 1]

margin        min(1, score / t3_block): how near the final score is to a block; without a score: uncertain / t3_block
disagreement  largest less smallest of the tiers' scores; 0 with fewer than two
severity      of the source, by the settings; 1 for granted high priority and for an appeal

All cases age alike, so their order never changes: it is that of rank = opened - urgency * ageing_s, smallest first,
which an index keeps. Hence the bound: a case of urgency u is overtaken only by cases that were opened at most
(1 - u) * ageing_s after it, whatever else comes, however urgent; nothing starves.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.decision import Decision
from schemas.types import Priority
from workers.console.domain.settings import PrioritySettings


@dataclass(frozen=True, slots=True)
class Urgency:
    """The three parts, each in [0, 1]."""

    margin: float
    disagreement: float
    severity: float

    def weighed(self, settings: PrioritySettings) -> float:
        """In [0, 1]."""
        total = settings.margin + settings.disagreement + settings.severity
        parts = (
            settings.margin * self.margin
            + settings.disagreement * self.disagreement
            + settings.severity * self.severity
        )
        return min(1.0, parts / total)


def urgency_of(decision: Decision, settings: PrioritySettings, *, appealed: bool = False) -> float:
    """How urgent a case of this decision is when it is opened."""
    parts = Urgency(_margin(decision), _disagreement(decision), _severity(decision, settings, appealed))
    return parts.weighed(settings)


def rank(opened_at: float, urgency: float, settings: PrioritySettings) -> float:
    """What orders the queue, smallest first."""
    return opened_at - urgency * settings.ageing_s


def priority(opened_at: float, urgency: float, now: float, settings: PrioritySettings) -> float:
    """For people to see; orders as `rank` does, the other way round."""
    return urgency + (now - opened_at) / settings.ageing_s


def latest_overtaker(opened_at: float, urgency: float, settings: PrioritySettings) -> float:
    """Nothing that is opened after this moment comes before the case."""
    return opened_at + (1.0 - urgency) * settings.ageing_s


def _margin(decision: Decision) -> float:
    thresholds = decision.thresholds
    score = thresholds.uncertain if decision.final_score is None else decision.final_score
    return 1.0 if score >= thresholds.t3_block else score / thresholds.t3_block


def _disagreement(decision: Decision) -> float:
    scores = [s.score for s in decision.scores if s.score is not None]
    return max(scores) - min(scores) if len(scores) > 1 else 0.0


def _severity(decision: Decision, settings: PrioritySettings, appealed: bool) -> float:
    admission = decision.admission
    if appealed or admission.priority is Priority.HIGH:
        return 1.0
    return settings.source_severity.get(admission.source or "", settings.default_severity)
