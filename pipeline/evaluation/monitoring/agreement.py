"""Two sets of rules on the same media: how often they agree, what the other one costs, and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import Field

from pipeline.detection.policy import Policy
from pipeline.detection.walk import NOT_REPRODUCIBLE, Known, Seen, Unknown, Walk, walk
from pipeline.evaluation.tables import Figure
from schemas.decision import Decision
from schemas.media import Admission, StageScore, StageTiming
from schemas.shadow import AuditSample, ShadowResult
from schemas.types import StageName

EXAMPLES_A_CELL = 5
_ORDER = tuple(StageName)


class Cell(Figure):
    """Media that the live rules decided one way and the others another, or that cannot be told."""

    live: str
    other: str
    count: int


class Example(Figure):
    """One media item on which the two differ."""

    live: str
    other: str
    tenant: str
    media_id: str
    decision_uid: str
    live_scores: dict[StageName, float | None]
    other_scores: dict[StageName, float | None]
    why: str = ""


class Reached(Figure):
    """Media that come to a stage; `most` counts what cannot be told as coming there."""

    stage: StageName
    live: int
    other: int
    most: int


class Agreement(Figure):
    """`agree`, `differ` and `unknown` sum to `total`."""

    since: datetime
    until: datetime
    live_rules: Annotated[tuple[str, ...], Field(description="bundle/policy versions that decided")]
    other_rules: tuple[str, ...]
    total: int
    agree: int
    differ: int
    unknown: int
    cells: tuple[Cell, ...]
    reached: tuple[Reached, ...]
    live_ms: Annotated[dict[StageName, float], Field(description="mean worked milliseconds of an item, by stage")]
    other_ms: Annotated[dict[StageName, float], Field(description="of the shadow's own models; empty without")]
    examples: tuple[Example, ...]


@dataclass(slots=True)
class _Times:
    total: defaultdict[StageName, float] = field(default_factory=lambda: defaultdict(float))
    items: Counter[StageName] = field(default_factory=Counter)

    def add(self, timings: Iterable[StageTiming]) -> None:
        for timing in timings:
            self.total[timing.stage] += timing.worked_ms
            self.items[timing.stage] += 1

    def means(self) -> dict[StageName, float]:
        return {stage: self.total[stage] / self.items[stage] for stage in _ORDER if self.items[stage]}


@dataclass(slots=True)
class Tally:
    """Counts as records stream by; memory does not grow with them."""

    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    live_rules: set[str] = field(default_factory=set)
    other_rules: set[str] = field(default_factory=set)
    examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)
    _live_stage: Counter[StageName] = field(default_factory=Counter)
    _other_stage: Counter[StageName] = field(default_factory=Counter)
    _unknown_stage: Counter[StageName] = field(default_factory=Counter)
    _live_ms: _Times = field(default_factory=_Times)
    _other_ms: _Times = field(default_factory=_Times)

    def replayed(self, policy: Policy, decision: Decision, sample: AuditSample | None = None) -> None:
        """Count what the policy makes of a decision; a sample of the same media knows more scores than its pass.

        A sample that failed on its way, as one whose bytes were erased meanwhile, says nothing of the media.
        """
        found = walk(policy, Seen.of(decision))
        if isinstance(found, Unknown) and sample is not None and _measured(sample.decision):
            found = walk(policy, Seen.of(sample.decision))
        self.other_rules.add(policy.version)
        self._add(decision.admission, Seen.of(decision), found, decision.timings, ())

    def watched(self, result: ShadowResult) -> None:
        """Count what a shadow made of a decision."""
        live = Seen(result.outcome, result.stage_exited, result.risk, result.scores)
        found: Walk = (
            Unknown(result.shadow_stage, result.why)
            if result.shadow_outcome is None
            else Known(result.shadow_outcome, result.shadow_stage, result.shadow_risk)
        )
        self.other_rules.add(f"{result.shadow.bundle_version}/{result.shadow.policy_version}")
        self._other_ms.add(result.shadow.timings)
        self._add(result.admission, live, found, result.timings, result.shadow.scores)

    def report(self, since: datetime, until: datetime) -> Agreement:
        """Cells by count, the largest first; examples in the order in which they came."""
        total = self.cells.total()
        agree = sum(count for (live, other), count in self.cells.items() if live == other)
        unknown = sum(count for (_, other), count in self.cells.items() if other == NOT_REPRODUCIBLE)
        cells = sorted(self.cells.items(), key=lambda kv: (-kv[1], kv[0]))
        return Agreement(
            since=since,
            until=until,
            live_rules=tuple(sorted(self.live_rules)),
            other_rules=tuple(sorted(self.other_rules)),
            total=total,
            agree=agree,
            differ=total - agree - unknown,
            unknown=unknown,
            cells=tuple(Cell(live=live, other=other, count=count) for (live, other), count in cells),
            reached=tuple(self._reached(stage) for stage in _ORDER),
            live_ms=self._live_ms.means(),
            other_ms=self._other_ms.means(),
            examples=tuple(example for (live, other), _ in cells for example in self.examples.get((live, other), ())),
        )

    def _add(
        self,
        admission: Admission,
        live: Seen,
        found: Walk,
        timings: Iterable[StageTiming],
        scores: tuple[StageScore, ...],
    ) -> None:
        cell = (live.verdict.name, found.name)
        self.cells[cell] += 1
        self.live_rules.add(f"{admission.bundle_version}/{admission.policy_version}")
        self._live_stage[live.stage_exited] += 1
        (self._unknown_stage if isinstance(found, Unknown) else self._other_stage)[found.stage] += 1
        self._live_ms.add(timings)
        kept = self.examples.setdefault(cell, [])
        if cell[0] != cell[1] and len(kept) < EXAMPLES_A_CELL:
            kept.append(_example(cell, admission, live, found, scores))

    def _reached(self, stage: StageName) -> Reached:
        """What cannot be told needed the stage that is named, so it reaches that one for certain."""
        at_least = _ORDER[_ORDER.index(stage) :]
        unknown = sum(self._unknown_stage.values())
        certain = sum(self._other_stage[s] + self._unknown_stage[s] for s in at_least)
        before = unknown - sum(self._unknown_stage[s] for s in at_least)
        return Reached(
            stage=stage,
            live=sum(self._live_stage[s] for s in at_least),
            other=certain,
            most=certain + before,
        )


def _measured(decision: Decision) -> bool:
    """Whether the stage that let it go had looked at it."""
    return any(score.stage is decision.stage_exited for score in decision.scores)


def _example(
    cell: tuple[str, str], admission: Admission, live: Seen, found: Walk, scores: tuple[StageScore, ...]
) -> Example:
    return Example(
        live=cell[0],
        other=cell[1],
        tenant=admission.tenant,
        media_id=admission.media_id,
        decision_uid=str(admission.decision_uid),
        live_scores={s.stage: s.score for s in live.scores},
        other_scores={s.stage: s.score for s in scores},
        why=found.why if isinstance(found, Unknown) else "",
    )
