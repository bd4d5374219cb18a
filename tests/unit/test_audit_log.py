"""What the writer leaves in the storage, and when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.evidence.log.audit_log import POINTS
from pipeline.evidence.log.checkpoint import Checkpoint, sign_checkpoint
from pipeline.evidence.log.errors import LogCorrupt, LogUnavailable, NotInLog, Superseded, Untrusted
from pipeline.evidence.log.merkle import root_of
from pipeline.evidence.log.storage import LogStorage, Token, open_log_storage
from pipeline.evidence.log.verify_all import verify_all
from tests.support.audit_logs import (
    KEYS,
    ORIGIN,
    RFC_LEAVES,
    SIGNER,
    filled,
    leaves,
    naive_root,
    objects_of,
    opened,
    reader,
    signer,
)


class Faulty:
    """A storage that fails where it is told to."""

    def __init__(self, inner: LogStorage) -> None:
        self.inner = inner
        self.failing = ""
        self.answer_lost = False

    def read(self, path: str) -> bytes:
        return self.inner.read(path)

    def create(self, path: str, data: bytes) -> None:
        if self.failing == "create":
            raise LogUnavailable("disk full")
        self.inner.create(path, data)

    def discard(self, path: str) -> None:
        if self.failing == "discard":
            raise LogUnavailable("not allowed")
        self.inner.discard(path)

    def folders(self) -> list[str]:
        return self.inner.folders()

    def read_checkpoint(self) -> tuple[bytes, Token] | None:
        return self.inner.read_checkpoint()

    def swap_checkpoint(self, new: bytes, token: Token | None) -> Token:
        if self.answer_lost:
            self.inner.swap_checkpoint(new, token)
        if self.failing == "swap":
            raise LogUnavailable("timeout")
        return self.inner.swap_checkpoint(new, token)

    def under(self, prefix: str) -> LogStorage:
        return Faulty(self.inner.under(prefix))


@pytest.fixture
def storage() -> LogStorage:
    return open_log_storage("memory://")


@pytest.fixture
def directory(tmp_path: Path) -> LogStorage:
    return open_log_storage(tmp_path.as_uri())


def test_a_new_log_begins_with_a_signed_checkpoint_of_no_leaves(storage: LogStorage) -> None:
    with pytest.raises(NotInLog, match="no checkpoint"):
        reader(storage).checkpoint()
    log = opened(storage)
    assert (log.size, log.last_entry()) == (0, None)
    assert reader(storage).checkpoint() == Checkpoint(ORIGIN, 0, naive_root([]))
    with pytest.raises(NotInLog):
        reader(storage).entry(0)
    assert opened(storage).append(leaves(0, 1)).size == 1


def test_a_checkpoint_that_was_removed_is_told_from_a_log_that_never_was(storage: LogStorage) -> None:
    filled(storage, 3)
    storage.discard("checkpoint")
    with pytest.raises(LogCorrupt, match="removed"):
        opened(storage)
    with pytest.raises(LogCorrupt, match="removed"):
        reader(storage).checkpoint()
    found = verify_all(storage, ORIGIN, KEYS)
    assert (found.ok, found.first_bad_index) == (False, 0)


def test_what_is_appended_is_covered_by_the_checkpoint(storage: LogStorage) -> None:
    log = opened(storage)
    checkpoint = log.append(RFC_LEAVES[1:])
    assert checkpoint == Checkpoint(ORIGIN, 7, naive_root(RFC_LEAVES[1:])) == reader(storage).checkpoint()
    assert (log.size, log.last_entry()) == (7, RFC_LEAVES[-1])
    assert [reader(storage).entry(index) for index in range(7)] == RFC_LEAVES[1:]


def test_the_files_are_the_specifications(directory: LogStorage, tmp_path: Path) -> None:
    filled(directory, 513, batch=150)
    assert sorted(objects_of(tmp_path)) == [
        "checkpoint",
        *("tile/0/000", "tile/0/001", "tile/0/002.p/1"),
        *("tile/1/000.p/1", "tile/1/000.p/2"),
        *("tile/entries/000", "tile/entries/001", "tile/entries/002.p/1"),
    ]


def test_unfinished_objects_of_an_earlier_writer_go_too(directory: LogStorage, tmp_path: Path) -> None:
    filled(directory, 200, batch=200)
    filled(directory, 256, batch=56)
    assert sorted(objects_of(tmp_path)) == ["checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/000"]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 65_536, 65_537])
def test_a_reopened_log_goes_on_where_it_was(storage: LogStorage, size: int) -> None:
    entries = [b"entry %d" % number for number in range(size + 300)]
    opened(storage).append(entries[:size])
    log = opened(storage)
    assert (log.size, log.last_entry()) == (size, entries[size - 1])
    log.append(entries[size:])
    assert reader(storage).checkpoint() == opened(open_log_storage("memory://")).append(entries)
    assert verify_all(storage, ORIGIN, KEYS, leaves=False).ok


@pytest.mark.parametrize("entries", [[], [b""], [b"x", b""], [b"x" * 65_536]])
def test_what_cannot_be_an_entry_is_refused_and_nothing_written(storage: LogStorage, entries: list[bytes]) -> None:
    log = opened(storage)
    with pytest.raises(ValueError, match="entry"):
        log.append(entries)
    assert reader(storage).checkpoint().size == 0
    assert log.append([b"x" * 65_535]).size == 1


def test_of_two_writers_the_slower_one_stops_and_writes_nothing(directory: LogStorage, tmp_path: Path) -> None:
    filled(directory, 10)
    slow, fast = opened(directory), opened(directory)
    fast.append(leaves(10, 20))
    before = objects_of(tmp_path)
    for _ in range(2):
        with pytest.raises(Superseded):
            slow.append(leaves(10, 30))
    assert objects_of(tmp_path) == before
    assert fast.append(leaves(20, 21)).size == 21


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("before") and "discard" not in point])
def test_a_writer_that_is_overtaken_anywhere_publishes_nothing(storage: LogStorage, point: str) -> None:
    """What a stopped process does when it goes on: another writer took over while it stood at `point`."""
    filled(storage, 10)
    seen = []

    def overtaken(at: str) -> None:
        if at == point and not seen:
            seen.append(at)
            opened(storage).append(leaves(10, 13))

    stopped = opened(storage, overtaken)
    with pytest.raises(Superseded):
        stopped.append(leaves(10, 20))
    assert seen == [point]
    assert reader(storage).checkpoint().size == 13
    assert verify_all(storage, ORIGIN, KEYS).ok


def test_a_writer_that_was_overtaken_by_a_rolled_back_log_stops_too(storage: LogStorage) -> None:
    filled(storage, 10)
    note = storage.read_checkpoint()
    assert note is not None
    log = filled(storage, 20)
    current = storage.read_checkpoint()
    assert current is not None
    storage.swap_checkpoint(note[0], current[1])
    with pytest.raises(Superseded):
        log.append(leaves(20, 21))


def test_other_bytes_under_a_new_objects_name_stop_the_writer(storage: LogStorage) -> None:
    filled(storage, 10)
    storage.create("tile/entries/000.p/20", b"of somebody else")
    with pytest.raises(LogCorrupt, match=r"tile/entries/000\.p/20") as caught:
        opened(storage).append(leaves(10, 20))
    assert "rolled back" in str(caught.value)
    assert reader(storage).checkpoint().size == 10


def test_a_failed_append_spends_the_writer_until_the_log_is_opened_again(storage: LogStorage) -> None:
    faulty = Faulty(storage)
    log = opened(faulty)
    faulty.failing = "create"
    with pytest.raises(LogUnavailable, match="disk full"):
        log.append(leaves(0, 3))
    faulty.failing = ""
    with pytest.raises(LogUnavailable, match="open the log again"):
        log.append(leaves(0, 3))
    assert opened(faulty).append(leaves(0, 3)).size == 3


@pytest.mark.parametrize(("answer_lost", "size"), [(False, 0), (True, 3)])
def test_an_unknown_outcome_is_known_after_opening_again(storage: LogStorage, answer_lost: bool, size: int) -> None:
    faulty = Faulty(storage)
    log = opened(faulty)
    faulty.failing, faulty.answer_lost = "swap", answer_lost
    with pytest.raises(LogUnavailable, match="timeout"):
        log.append(leaves(0, 3))
    faulty.failing, faulty.answer_lost = "", False
    assert opened(faulty).size == size


def test_a_storage_that_keeps_everything_is_no_failure(storage: LogStorage) -> None:
    faulty = Faulty(storage)
    faulty.failing = "discard"
    log = opened(faulty)
    log.append(leaves(0, 200))
    assert log.append(leaves(200, 300)).size == 300
    assert storage.read("tile/0/000.p/200")


def spoiled(path: str) -> Callable[[LogStorage], None]:
    def spoil(storage: LogStorage) -> None:
        data = bytearray(storage.read(path))
        data[-1] ^= 1
        storage.discard(path)
        storage.create(path, bytes(data))

    return spoil


@pytest.mark.parametrize("path", ["tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"])
@pytest.mark.parametrize("remove", [True, False])
def test_nothing_is_appended_to_a_log_whose_right_edge_is_corrupt(storage: LogStorage, path: str, remove: bool) -> None:
    filled(storage, 300)
    if remove:
        storage.discard(path)
    else:
        spoiled(path)(storage)
    with pytest.raises(LogCorrupt):
        opened(storage)


def test_a_last_entry_in_a_full_bundle_is_verified_too(storage: LogStorage) -> None:
    filled(storage, 256)
    spoiled("tile/entries/000")(storage)
    with pytest.raises(LogCorrupt, match="entry 255"):
        opened(storage)


def test_a_checkpoint_that_nobody_trusted_signed_is_not_continued(storage: LogStorage) -> None:
    storage.swap_checkpoint(sign_checkpoint(Checkpoint(ORIGIN, 0, root_of([])), signer(2)), None)
    with pytest.raises(Untrusted):
        opened(storage)


def test_a_log_of_no_leaves_with_a_checkpoint_can_grow(storage: LogStorage) -> None:
    storage.swap_checkpoint(sign_checkpoint(Checkpoint(ORIGIN, 0, root_of([])), SIGNER), None)
    log = opened(storage)
    assert (log.size, log.last_entry()) == (0, None)
    assert log.append(leaves(0, 3)).size == 3


def test_a_kept_checkpoint_must_be_continued(storage: LogStorage) -> None:
    kept = filled(storage, 10).append(leaves(10, 20))
    filled(storage, 40)
    assert opened(storage, kept=[kept]).size == 40
    with pytest.raises(LogCorrupt, match="rolled back from 41 to 40"):
        opened(storage, kept=[Checkpoint(ORIGIN, 41, kept.root)])
    with pytest.raises(LogCorrupt, match="forked"):
        opened(storage, kept=[Checkpoint(ORIGIN, 21, kept.root)])
    with pytest.raises(LogCorrupt, match="removed"):
        opened(open_log_storage("memory://"), kept=[kept])
