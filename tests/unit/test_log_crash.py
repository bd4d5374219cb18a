"""A writer that dies at any durable step leaves a log that is consistent, and that the next writer completes."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import pytest

from pipeline.evidence.log.audit_log import POINTS
from pipeline.evidence.log.checkpoint import Checkpoint
from pipeline.evidence.log.storage import LogStorage, open_log_storage
from pipeline.evidence.log.verify_all import verify_all
from tests.support.audit_logs import KEYS, ORIGIN, filled, leaves, opened, reader


class Killed(BaseException):
    """Not an Exception, so that no handler of ours can mistake it for a fault that it knows."""


class KillAt:
    """A hook that kills at the n-th point it is called with, and notes the points before."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.points: list[str] = []

    def __call__(self, point: str) -> None:
        self.points.append(point)
        if len(self.points) > self.number:
            raise Killed(point)


def appended_until_killed(storage: LogStorage, number: int, start: int, stop: int) -> KillAt | None:
    """None when the append ended before the n-th point."""
    kill = KillAt(number)
    log = opened(storage, kill)
    try:
        log.append(leaves(start, stop))
    except Killed:
        return kill
    return None


@pytest.mark.parametrize(
    ("before", "after", "retry_size"),
    [(0, 5, 1), (0, 5, 1000), (0, 256, 97), (200, 300, 7), (250, 600, 101), (510, 513, 1)],
)
def test_killed_at_every_point_then_reopened(before: int, after: int, retry_size: int) -> None:
    """The next writer reads the same records again, perhaps in other batches."""
    met: set[str] = set()
    for number in count():
        storage = open_log_storage("memory://")
        filled(storage, before) if before else None
        killed = appended_until_killed(storage, number, before, after)
        if killed is None:
            break
        met.update(killed.points)
        published = "after checkpoint" in killed.points
        log = opened(storage)
        assert log.size == (after if published else before)
        assert verify_all(storage, ORIGIN, KEYS).ok
        while log.size < after + 10:
            log.append(leaves(log.size, min(after + 10, log.size + retry_size)))
        assert list(reader(storage).entries(0, after + 10)) == leaves(0, after + 10)
        assert verify_all(storage, ORIGIN, KEYS).ok
    assert met >= set(POINTS[:6])


def test_killed_again_and_again_no_checkpoint_ever_takes_another_back() -> None:
    storage = open_log_storage("memory://")
    kept: list[Checkpoint] = []
    for number in range(60):
        log = opened(storage, KillAt(number % 17), kept)
        try:
            while True:
                log.append(leaves(log.size, log.size + 50 + number))
        except Killed:
            if storage.read_checkpoint() is not None:
                kept.append(reader(storage).checkpoint())
    assert len({checkpoint.size for checkpoint in kept}) > 5
    assert verify_all(storage, ORIGIN, KEYS, kept=kept).ok
    assert list(reader(storage).entries(0, kept[-1].size)) == leaves(0, kept[-1].size)


def test_a_file_is_whole_or_absent_and_synced_before_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of calls to the kernel: every object's data, then the names, then the checkpoint, then its name."""
    calls: list[str] = []

    def fsync(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        calls.append("data" if ".staging" in path.parts else f"names {path.relative_to(tmp_path)}")

    def link(source: Path, target: Path) -> None:
        assert calls[-1] == "data"
        calls.append(f"link {target.relative_to(tmp_path)}")
        real_link(source, target)

    real_link = os.link
    log = opened(open_log_storage(tmp_path.as_uri()))
    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr("os.link", link)
    log.append(leaves(0, 3))
    assert calls == [
        *("data", "link tile/entries/000.p/3", "data", "link tile/0/000.p/3"),
        *("names .", "names tile", "names tile/0", "names tile/0/000.p"),
        *("names tile/entries", "names tile/entries/000.p", "data", "names ."),
    ]
