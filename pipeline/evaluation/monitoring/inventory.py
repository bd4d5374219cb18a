"""Where media comes from, and what stage 1 says of it: the inventory of a baseline audit."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from pipeline.evaluation.monitoring.drift import NO_SOURCE
from pipeline.evaluation.tables import Figure
from schemas.decision import Decision, Risk
from schemas.types import StageName

BINS = 10


class SourceTraffic(Figure):
    """One source. `scores`: items by classifier score, in ten bins of .1; what has no score is in none."""

    source: str
    items: int
    released: int
    sampled: int
    scores: tuple[int, ...]


@dataclass(slots=True)
class _Counts:
    items: int = 0
    released: int = 0
    sampled: int = 0
    scores: list[int] = field(default_factory=lambda: [0] * BINS)


class Inventory:
    """Counts as decisions and samples stream by."""

    def __init__(self) -> None:
        self._found: defaultdict[str, _Counts] = defaultdict(_Counts)

    def add(self, decision: Decision) -> None:
        """One decision."""
        counts = self._of(decision)
        counts.items += 1
        counts.released += decision.risk is Risk.RELEASED
        for score in decision.scores:
            if score.stage is StageName.CLASSIFIER and score.score is not None:
                counts.scores[min(int(score.score * BINS), BINS - 1)] += 1

    def sampled(self, decision: Decision) -> None:
        """What the later stages made of a pass, which was added as a pass."""
        self._of(decision).sampled += 1

    def report(self) -> tuple[SourceTraffic, ...]:
        """The busiest first."""
        made = (
            SourceTraffic(source=name, items=c.items, released=c.released, sampled=c.sampled, scores=tuple(c.scores))
            for name, c in self._found.items()
        )
        return tuple(sorted(made, key=lambda s: (-s.items, s.source)))

    def _of(self, decision: Decision) -> _Counts:
        return self._found[decision.admission.source or NO_SOURCE]
