"""One demo run: what became of every reference that was published."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.transport import RawRecord
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter
from schemas.decision import Decision
from schemas.ocsf import machine_decision
from schemas.topics import Topic
from schemas.wire import decode
from workers.demo_media import DemoItem


@dataclass
class Tally:
    """Every published media id with its decisions and dead letters, as readers of the topics see them."""

    items: dict[str, DemoItem]
    names: TopicNames
    decisions: dict[str, list[Decision]] = field(default_factory=lambda: defaultdict(list))
    letters: dict[str, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))

    def add(self, record: RawRecord) -> str | None:
        """Count one record; returns its media id; None for one of another run, and for a review."""
        if record.tp.topic == self.names.physical(Topic.DEAD_LETTER):
            letter = decode(DeadLetter, record.header(DEAD_LETTER_HEADER) or b"")
            return self._count(self.letters, letter.media_id, letter)
        decision = machine_decision(record.value)
        if decision is None:
            return None
        return self._count(self.decisions, decision.admission.media_id, decision)

    def _count(self, where: dict[str, list[Any]], media_id: str, what: Any) -> str | None:
        if media_id not in self.items:
            return None
        where[media_id].append(what)
        return media_id

    def forget(self) -> None:
        """Count from nothing again."""
        self.decisions.clear()
        self.letters.clear()

    @property
    def pending(self) -> list[str]:
        """References without an answer."""
        return [m for m in self.items if not self.decisions.get(m) and not self.letters.get(m)]

    @property
    def doubled(self) -> list[str]:
        """References with more than one answer."""
        return [m for m in self.items if len(self.decisions.get(m, ())) + len(self.letters.get(m, ())) > 1]

    @property
    def complete(self) -> bool:
        """Every reference reached exactly one decision or dead letter."""
        return not self.pending and not self.doubled

    def summary(self) -> dict[str, Any]:
        """Counts by outcome and stage, latencies in milliseconds."""
        made = [d for found in self.decisions.values() for d in found]
        return {
            "published": len(self.items),
            "outcomes": dict(Counter(_outcome(d) for d in made)),
            "stage_exited": dict(Counter(d.stage_exited.value for d in made)),
            "reasons": dict(Counter(d.reasons[0].code.value for d in made)),
            "dead_letters": dict(Counter(x.code.value for found in self.letters.values() for x in found)),
            "latency_ms": _latencies(made),
            "pending": self.pending,
            "doubled": self.doubled,
            "complete": self.complete,
        }


def _outcome(decision: Decision) -> str:
    return f"{decision.outcome}/{decision.risk}" if decision.risk else decision.outcome.value


def _latencies(made: Iterable[Decision]) -> dict[str, dict[str, float]]:
    by_stage: dict[str, list[float]] = defaultdict(list)
    for decision in made:
        for timing in decision.timings:
            by_stage[timing.stage].append(timing.waited_ms + timing.worked_ms)
    return {stage: {"p50": _quantile(v, 0.5), "p95": _quantile(v, 0.95), "n": len(v)} for stage, v in by_stage.items()}


def _quantile(values: list[float], q: float) -> float:
    """The nearest-rank quantile."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 1)
