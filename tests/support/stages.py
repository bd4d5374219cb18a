"""Stages that do what their items say, for tests of executors and runners."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from pipeline.streaming.stage import Defer, DeferScope, Emit, Item, Outcome, Output, Reject
from schemas.deadletter import RejectCode
from schemas.review import Label, ReviewVerdict
from schemas.topics import Topic

REJECT = Reject(RejectCode.SOURCE_GONE, "404 from the source")
DEFER = Defer(DeferScope.ITEM, "503 from the source", retry_after_s=2.5)


def item(value: str) -> Item[str]:
    """An item whose value is an instruction to `ObedientStage`."""
    return Item(value, "m-1", "default", "test", "media.ingest-0-1", "0" * 32, attempt=1, queued_at_s=1.5)


def emitted(value: str) -> Emit:
    """What `ObedientStage` makes of an item that is no instruction: one record that names it."""
    verdict = ReviewVerdict(
        review_id=UUID(int=1),
        decision_uid=UUID(int=2),
        tenant="default",
        media_id=value,
        label=Label.PHOTOGRAPH,
        reviewer="r-1",
        rationale="",
        reviewed_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    return Emit((Output(Topic.PASS, f"default/{value}", verdict),))


@dataclass(slots=True)
class ObedientStage:
    """Obeys `reject`, `defer`, `raise`, `sigkill`, `allocate N`, `hang`, `drop`, `touch P`, `await P`; else emits.

    `journal` gets a line `open PID`, `process PID` or `close PID` for each call; `broken` makes `open` raise.
    """

    journal: Path
    broken: bool = False

    def open(self) -> None:
        self._note("open")
        if self.broken:
            raise RuntimeError("the model file is broken")

    def process(self, batch: Sequence[Item[str]]) -> Sequence[Outcome]:
        self._note("process")
        return [outcome for i in batch if (outcome := _obey(i.value)) is not None]

    def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        with self.journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{what} {os.getpid()}\n")


def _obey(instruction: str) -> Outcome | None:  # noqa: C901 - one branch an instruction
    verb, _, argument = instruction.partition(" ")
    match verb:
        case "reject":
            return REJECT
        case "defer":
            return DEFER
        case "drop":
            return None
        case "raise":
            raise ZeroDivisionError("asked to raise")
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "allocate":
            bytearray(int(argument))
        case "hang":
            time.sleep(3600)
        case "touch":
            Path(argument).touch()
        case "await":
            while not Path(argument).exists():
                time.sleep(0.002)
    return emitted(verb)
