"""Every batch is processed with the side input's value of the moment it was submitted, in every process of a pool."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.streaming.executors.base import Completed, StageFailed
from pipeline.streaming.executors.processes import Processes
from pipeline.streaming.side_input import Adopting
from pipeline.streaming.stage import Item, Outcome
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from tests.support.stages import ObedientStage, emitted, item


@dataclass(slots=True)
class TellingStage(ObedientStage):
    """Emits what it adopted last, once it has obeyed."""

    adopted: str = "nothing"

    def adopt(self, value: Any) -> None:
        if value == "bad":
            raise ValueError("not a value that this stage takes")
        self.adopted = value

    def process(self, batch: Sequence[Item[str]]) -> Sequence[Outcome]:
        ObedientStage.process(self, batch)
        return [emitted(self.adopted) for _ in batch]


@dataclass
class Source:
    """A side input that the test sets."""

    value: str = "first"
    calls: list[str] = field(default_factory=list)
    fails_to_open: bool = False
    failed: bool = False

    def open(self) -> None:
        self.calls.append("open")
        if self.fails_to_open:
            raise OSError("no first value")

    def current(self) -> str:
        if self.failed:
            raise OSError("the topic is gone")
        return self.value

    def close(self) -> None:
        self.calls.append("close")


def pool(journal: Path, source: Source, workers: int = 2, make: Callable[..., Any] = TellingStage) -> Processes[str]:
    return Processes(partial(make, journal), workers=workers, ticket_timeout_s=60, side_input=source)


def collected(executor: Processes[str], count: int) -> dict[int, Completed]:
    found: dict[int, Completed] = {}
    for _ in range(200):
        if len(found) >= count:
            return found
        found |= {done.ticket: done for done in executor.completed(1.0)}
    raise AssertionError(f"{len(found)} of {count} results")


def test_a_change_takes_effect_in_the_next_batch_of_every_process(tmp_path: Path) -> None:
    source, gate = Source(), tmp_path / "gate"
    executor = pool(tmp_path / "journal", source)
    executor.open()
    try:
        executor.submit(1, [item(f"await {gate}")])
        source.value = "second"
        executor.submit(2, [item("m"), item("m")])
        assert collected(executor, 1)[2].outcomes == (emitted("second"), emitted("second"))
        source.value = "third"
        gate.touch()
        assert collected(executor, 1)[1].outcomes == (emitted("first"),), "what was in flight ends as it began"
        executor.submit(3, [item("m")])
        executor.submit(4, [item("m")])
        assert {done.outcomes for done in collected(executor, 2).values()} == {(emitted("third"),)}
        source.value = "first"
        executor.submit(5, [item("m")])
        assert collected(executor, 1)[5].outcomes == (emitted("first"),)
    finally:
        executor.close(30)
    assert source.calls == ["open", "close"]


def test_a_process_that_replaces_a_dead_one_adopts_too(tmp_path: Path) -> None:
    source = Source()
    executor = pool(tmp_path / "journal", source, workers=1)
    executor.open()
    try:
        executor.submit(1, [item("sigkill")])
        assert collected(executor, 1)[1].crash == f"killed by {signal.SIGKILL.name}"
        source.value = "second"
        while not executor.free_slots():
            executor.completed(1.0)
        executor.submit(2, [item("m")])
        assert collected(executor, 1)[2].outcomes == (emitted("second"),)
    finally:
        executor.close(30)


def test_without_a_first_value_nothing_is_opened(tmp_path: Path) -> None:
    source = Source(fails_to_open=True)
    with pytest.raises(StageFailed, match="no first value"):
        pool(tmp_path / "journal", source).open()
    assert source.calls == ["open", "close"]
    assert not (tmp_path / "journal").exists()


def test_when_newer_values_cannot_be_had_no_batch_is_begun(tmp_path: Path) -> None:
    source = Source()
    executor = pool(tmp_path / "journal", source, workers=1)
    executor.open()
    try:
        source.failed = True
        with pytest.raises(StageFailed, match="the topic is gone"):
            executor.submit(1, [item("m")])
    finally:
        executor.close(30)
    assert "process" not in (tmp_path / "journal").read_text()


@pytest.mark.parametrize(
    ("make", "value", "message"),
    [(TellingStage, "bad", "not a value that this stage takes"), (ObedientStage, "x", "has no method `adopt`")],
)
def test_a_value_that_the_stage_cannot_take_is_a_bug(
    make: Callable[..., Any], value: str, message: str, tmp_path: Path
) -> None:
    executor = pool(tmp_path / "journal", Source(value), workers=1, make=make)
    executor.open()
    try:
        executor.submit(1, [item("m")])
        with pytest.raises(StageFailed, match=message):
            collected(executor, 1)
    finally:
        executor.close(30)


def test_what_adopts_is_known_by_its_method() -> None:
    assert isinstance(TellingStage(Path("journal")), Adopting)
    assert not isinstance(ObedientStage(Path("journal")), Adopting)
