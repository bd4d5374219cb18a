"""What an outcome means for its record: results, a dead letter, a retry topic, a wait, or an escalation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.streaming.batch import Batcher
from pipeline.streaming.clock import Clock
from pipeline.streaming.codec import Codec
from pipeline.streaming.partitions import Entry, Partitions, State
from pipeline.streaming.plan import Plan, RunnerSettings
from pipeline.streaming.stage import Defer, DeferScope, Emit, GiveUpCause, Item, Outcome, Reject
from pipeline.streaming.trace import RecordTrace
from pipeline.streaming.transport import OutRecord
from pipeline.streaming.watch import Watch
from schemas.deadletter import EDGE_CODES, RejectCode

MAX_KILLS = 2


class Resolver:
    """Applies outcomes to entries; commits nothing."""

    def __init__(
        self,
        *,
        plan: Plan,
        codec: Codec[Any],
        partitions: Partitions,
        batcher: Batcher,
        settings: RunnerSettings,
        clock: Clock,
        watch: Watch,
        jitter: Callable[[], float],
    ) -> None:
        """`jitter` gives a number in [0, 1) for the back-off."""
        self._plan = plan
        self._codec = codec
        self._partitions = partitions
        self._batcher = batcher
        self._settings = settings
        self._clock = clock
        self._watch = watch
        self._jitter = jitter
        self.finished_since_s: float | None = None
        """When the oldest result that is not yet committed was finished."""

    def finish(self, entry: Entry, outcome: Outcome) -> None:
        """Apply one outcome."""
        entry.steps = outcome.steps
        match outcome:
            case Emit(outputs=outputs):
                entry.outputs = outputs
                self._done(entry, self._codec.write(entry.raw, _trace(entry), _item(entry), outputs))
            case Reject():
                self._reject(entry, outcome)
            case Defer(scope=DeferScope.ITEM):
                self._defer_item(entry, outcome)
            case Defer():
                self._defer_dependency(entry, outcome)

    def give_up(self, entry: Entry, cause: GiveUpCause, detail: str) -> None:
        """The fail-closed outcome of an item that could not be finished."""
        outcome = self._plan.fallback(_item(entry), cause, detail)
        if isinstance(outcome, Defer):
            # Its evidence cannot be written: it waits anew, for a decision without evidence is worse than a late one.
            entry.deferred_since_s = None
        self.finish(entry, outcome)

    def split(self, entries: list[Entry], crash: str, *, alone: bool) -> None:
        """The process that held these died: each runs alone now; one that kills twice alone is given up."""
        self._watch.crash(crash)
        again = []
        for entry in entries:
            entry.kills += alone
            entry.alone = True
            if entry.kills >= MAX_KILLS:
                self.give_up(entry, GiveUpCause.ANALYSIS_CRASH, crash)
            else:
                again.append(entry)
        self._batcher.put_back(again)

    def recount(self) -> None:
        """Some results are gone: which is the oldest that still waits for its commit?"""
        waiting = (log.entries[0].done_at_s for log in self._partitions if log.finished())
        self.finished_since_s = min(waiting, default=None)

    def _done(self, entry: Entry, out: tuple[OutRecord, ...]) -> None:
        entry.out = out
        entry.state = State.DONE
        entry.done_at_s = self._clock.monotonic_s()
        if self.finished_since_s is None:
            self.finished_since_s = entry.done_at_s

    def _reject(self, entry: Entry, reject: Reject) -> None:
        if not self._is_producers_fault(reject.code) and not self._accepted(entry):
            entry.own_reject = reject.code
        self._watch.reject(entry, reject)
        self._done(entry, (self._codec.dead_letter(entry.raw, _trace(entry), entry.item, reject),))

    def _is_producers_fault(self, code: RejectCode) -> bool:
        return self._plan.edge and code in EDGE_CODES

    def _accepted(self, entry: Entry) -> bool:
        log = self._partitions.get(entry.tp)
        accepted = log is not None and entry.raw.offset < log.note.accept
        if accepted:
            self._watch.accepted(entry)
        return accepted

    def _defer_item(self, entry: Entry, defer: Defer) -> None:
        item = _item(entry)
        again = self._codec.retry(entry.raw, _trace(entry), item, defer)
        self._watch.defer(entry, defer)
        if again is None:
            detail = f"{defer.cause}; asked {item.attempt} times"
            self._reject(entry, Reject(RejectCode.SOURCE_UNAVAILABLE, detail))
        else:
            self._done(entry, (again,))

    def _defer_dependency(self, entry: Entry, defer: Defer) -> None:
        """Nothing moves: the partition waits with a growing, jittered delay, until the item is too old for it."""
        now_s = self._clock.monotonic_s()
        self._watch.defer(entry, defer)
        if entry.deferred_since_s is None:
            entry.deferred_since_s = now_s
        if now_s - entry.deferred_since_s >= self._settings.dependency_max_age_s:
            self.give_up(entry, GiveUpCause.DEPENDENCY_UNAVAILABLE, defer.cause)
            return
        wait_s = min(self._settings.backoff_max_s, self._settings.backoff_first_s * 2.0**entry.defers)
        entry.defers = min(entry.defers + 1, 30)
        entry.not_before_s = now_s + max(defer.retry_after_s, wait_s * (0.5 + 0.5 * self._jitter()))
        self._batcher.put_back([entry])


def _item(entry: Entry) -> Item[Any]:
    assert entry.item is not None  # noqa: S101 - only decoded entries reach a stage
    return entry.item


def _trace(entry: Entry) -> RecordTrace:
    assert entry.trace is not None  # noqa: S101 - given when the record was polled
    return entry.trace
