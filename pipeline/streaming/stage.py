"""The stage abstraction: what a worker author writes, and the values that pass between stage and runner.

A stage knows no Kafka. It turns a batch of inputs into one outcome per input, of three fates:
`Emit` (results), `Reject` (the input is bad: dead letter) or `Defer` (something it needs is not there now).
An exception is a bug: the process exits, nothing is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from schemas.base import Record
from schemas.deadletter import RejectCode
from schemas.topics import Topic

In = TypeVar("In")


@dataclass(frozen=True, slots=True)
class Output:
    """A record for a logical topic. `key` is `tenant/media_id`."""

    topic: Topic
    key: str
    record: Record


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the work on one item, such as `fetch`. Nanoseconds since the epoch; made by `steps.step`."""

    name: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Emit:
    """None, one or many results; the input's offset may move on. `steps`: see `steps.with_steps`."""

    outputs: tuple[Output, ...]
    steps: tuple[Step, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Reject:
    """The input is bad: a dead letter goes out in the same transaction, the offset moves on."""

    code: RejectCode
    detail: str
    steps: tuple[Step, ...] = field(default=(), compare=False)


class DeferScope(StrEnum):
    """What is missing: something that every item needs, or one item's own origin."""

    DEPENDENCY = "dependency"
    ITEM = "item"


@dataclass(frozen=True, slots=True)
class Defer:
    """Try again later. DEPENDENCY: the offset stays and the partition waits. ITEM: on to the next retry topic.

    `asked` False: the origin was not asked, because of a limit of ours; that is no attempt.
    """

    scope: DeferScope
    cause: str
    retry_after_s: float = 0.0
    asked: bool = True
    steps: tuple[Step, ...] = field(default=(), compare=False)


Outcome = Emit | Reject | Defer


@dataclass(frozen=True, slots=True)
class Item(Generic[In]):
    """One decoded record as a stage sees it. Picklable: it crosses process borders.

    `origin` is `topic-partition-offset` of the first read; `attempt` counts from 1 over retry topics;
    `queued_at_s` is the record's Kafka timestamp in seconds since the epoch.
    """

    value: In
    media_id: str
    tenant: str
    source: str
    origin: str
    trace_id: str
    attempt: int
    queued_at_s: float


class Stage(Protocol[In]):
    """What runs in the executor. One instance per process; under the threads executor `process` is re-entrant."""

    def open(self) -> None:
        """Load and warm up, in the process that will run it. May take long; raises when it cannot work."""

    def process(self, batch: Sequence[Item[In]]) -> Sequence[Outcome]:
        """Outcomes of the same length and order as the batch. Raises only on a bug."""

    def close(self) -> None:
        """Give back what `open` took. Called once, also after a failed `open`."""


class GiveUpCause(StrEnum):
    """Why the runner stops trying an item; the worker turns it into an escalation."""

    ANALYSIS_CRASH = "analysis_crash"
    DEPENDENCY_UNAVAILABLE = "dependency_unavailable"


class Fallback(Protocol[In]):
    """Runs in the consumer process: the fail-closed outcome of an item that the stage could not finish."""

    def __call__(self, item: Item[In], cause: GiveUpCause, detail: str) -> Outcome:
        """Never a pass. `Defer(DEPENDENCY)` when the decision's evidence cannot be stored now."""
