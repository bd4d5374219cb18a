"""The executor interface: batches go in under a ticket, outcomes come out under it, in any order."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.streaming.stage import In, Item, Outcome, Stage


@dataclass(frozen=True, slots=True)
class Completed:
    """The outcomes of one ticket, as long as its batch and in its order.

    `outcomes` is None if and only if the process that held the ticket died; `crash` then says how, as in
    `killed by SIGKILL` or `took longer than 30 s`.
    """

    ticket: int
    outcomes: tuple[Outcome, ...] | None
    crash: str = ""


class StageFailed(Exception):
    """The stage raised, which is a bug. The text holds its traceback."""


class Executor(Protocol[In]):
    """Runs one stage. For one calling thread; `open` comes first, nothing after `close`."""

    def open(self) -> None:
        """Open the stage and wait until it is open.

        Raises:
            StageFailed: the stage cannot work; everything has been given back.
        """

    def free_slots(self) -> int:
        """How many more tickets `submit` takes now. `completed` frees the slots of what it returns."""

    def submit(self, ticket: int, batch: Sequence[Item[In]]) -> None:
        """Start a batch under a ticket of the caller's choice; needs a free slot."""

    def completed(self, timeout_s: float = 0.0) -> Sequence[Completed]:
        """What has finished since the last call.

        Waits up to `timeout_s` for the first one; may return nothing before that, when a slot became free.

        Raises:
            StageFailed: the stage raised, or returned another number of outcomes than the batch has items.
        """

    def close(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for running tickets, whose results are dropped, and close the stage once.

        Raises:
            StageFailed: the stage raised meanwhile; everything has been given back.
        """


def open_stage(stage: Stage[Any]) -> None:
    """Open a stage; one that fails to open is closed again."""
    try:
        stage.open()
    except BaseException:
        stage.close()
        raise


def process_batch(stage: Stage[In], batch: Sequence[Item[In]]) -> tuple[Outcome, ...]:
    """Run one batch.

    Raises:
        StageFailed: the numbers of items and outcomes differ. The stage's own exceptions pass unchanged.
    """
    outcomes = tuple(stage.process(batch))
    if len(outcomes) != len(batch):
        raise StageFailed(
            f"{type(stage).__qualname__}.process returned {len(outcomes)} outcomes for {len(batch)} items; "
            "it must return one for each"
        )
    return outcomes


def require_free_slot(free_slots: int) -> None:
    """Refuse a ticket too many: the caller did not ask `free_slots`."""
    if free_slots < 1:
        raise RuntimeError("no free slot; take results with completed() first")


@contextmanager
def raising_stage_failed() -> Iterator[None]:
    """Turn the stage's exceptions into StageFailed with the traceback as text."""
    try:
        yield
    except StageFailed:
        raise
    except Exception as error:
        raise StageFailed(traceback.format_exc()) from error
