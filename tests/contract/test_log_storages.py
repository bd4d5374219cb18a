"""One suite for every storage of the audit log: a directory, memory, and S3 by its protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.evidence.log.directory_storage import DirectoryStorage
from pipeline.evidence.log.errors import LogCorrupt, LogUnavailable, NotInLog, Superseded
from pipeline.evidence.log.storage import LogStorage, open_log_storage
from tests.support.audit_logs import filled, leaves, opened, reader
from tests.support.conditional_s3 import ConditionalS3, serving_s3


@pytest.fixture
def s3() -> Iterator[ConditionalS3]:
    with serving_s3() as server:
        yield server


@pytest.fixture(params=["directory", "memory", "s3", "s3 prefix"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> LogStorage:
    if request.param == "directory":
        return open_log_storage((tmp_path / "a log").as_uri())
    if request.param == "memory":
        return open_log_storage("memory://")
    server = request.getfixturevalue("s3")
    url = f"{server.url}/some/log" if request.param == "s3 prefix" else server.url
    return open_log_storage(url, server.options)


def test_what_is_created_can_be_read_and_is_not_changed(storage: LogStorage) -> None:
    storage.create("tile/0/000.p/1", b"one")
    storage.create("tile/0/000.p/1", b"one")
    with pytest.raises(LogCorrupt, match=r"tile/0/000\.p/1"):
        storage.create("tile/0/000.p/1", b"two")
    assert storage.read("tile/0/000.p/1") == b"one"


def test_absent_objects_say_so(storage: LogStorage) -> None:
    with pytest.raises(NotInLog, match="tile/0/000"):
        storage.read("tile/0/000")
    assert storage.read_checkpoint() is None


def test_discarding_is_final_and_may_be_repeated(storage: LogStorage) -> None:
    storage.create("tile/0/000.p/1", b"one")
    storage.create("tile/0/000.p/2", b"two")
    for _ in range(2):
        storage.discard("tile/0/000.p/1")
    with pytest.raises(NotInLog):
        storage.read("tile/0/000.p/1")
    assert storage.read("tile/0/000.p/2") == b"two"
    storage.discard("tile/0/000.p/2")
    storage.create("tile/0/000.p/3", b"three")
    assert storage.read("tile/0/000.p/3") == b"three"


def test_a_checkpoint_is_swapped_by_whoever_read_it_last(storage: LogStorage) -> None:
    first = storage.swap_checkpoint(b"1", None)
    assert storage.read_checkpoint() == (b"1", first)
    second = storage.swap_checkpoint(b"2", first)
    with pytest.raises(Superseded, match="checkpoint"):
        storage.swap_checkpoint(b"3", first)
    with pytest.raises(Superseded, match="checkpoint"):
        storage.swap_checkpoint(b"3", None)
    assert storage.read_checkpoint() == (b"2", second)


def test_a_checkpoint_that_was_removed_is_not_replaced(storage: LogStorage) -> None:
    token = storage.swap_checkpoint(b"1", None)
    storage.discard("checkpoint")
    with pytest.raises(Superseded):
        storage.swap_checkpoint(b"2", token)
    assert storage.read_checkpoint() is None


def test_parts_do_not_see_each_other(storage: LogStorage) -> None:
    block, other = storage.under("decisions.block/0"), storage.under("decisions.block/1")
    block.create("tile/0/000", b"one")
    block.swap_checkpoint(b"1", None)
    assert other.read_checkpoint() is None
    with pytest.raises(NotInLog):
        other.read("tile/0/000")
    assert storage.under("decisions.block").under("0").read("tile/0/000") == b"one"


def test_folders_are_listed_with_what_lies_below_them(storage: LogStorage) -> None:
    assert storage.folders() == storage.under("a").folders() == []
    for name in ("a/decisions.block/0", "a/decisions.block/40", "b/decisions.pass/7"):
        storage.under(name).swap_checkpoint(b"1", None)
    storage.create("a/decisions.block/x", b"no folder")
    storage.under("a/decisions.block/0").create("tile/0/000", b"one")
    assert storage.folders() == ["a", "b"]
    assert storage.under("a/decisions.block").folders() == ["0", "40"]
    assert storage.under("a/decisions.block/0").folders() == ["tile"]
    assert storage.under("a/decisions.block/40").folders() == []


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "tile//0", "tile/.", "tile/0/"])
def test_no_path_leaves_its_storage(storage: LogStorage, path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        storage.create(path, b"")
    with pytest.raises(ValueError, match="path"):
        storage.read(path)


def test_a_whole_log(storage: LogStorage) -> None:
    filled(storage, 300, batch=70)
    log = opened(storage)
    assert log.size == 300
    assert log.last_entry() == leaves(299, 300)[0]
    log.append(leaves(300, 600))
    filled(storage, 700)
    with pytest.raises(Superseded):
        log.append(leaves(600, 601))
    assert list(reader(storage).entries(0, 700)) == leaves(0, 700)


def test_an_unknown_kind_of_storage_is_refused() -> None:
    with pytest.raises(ValueError, match="expected file:///dir"):
        open_log_storage("ftp://host/dir")
    with pytest.raises(ValueError, match="absolute"):
        open_log_storage("file://host/dir")


def test_reading_needs_no_right_to_write(tmp_path: Path) -> None:
    storage = open_log_storage((tmp_path / "absent").as_uri())
    assert storage.under("decisions.block/0").read_checkpoint() is None
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = open_log_storage((tmp_path / "file").as_uri())
    with pytest.raises(LogUnavailable, match="file"):
        storage.create("tile/0/000", b"one")
    with pytest.raises(LogUnavailable, match="checkpoint"):
        storage.swap_checkpoint(b"1", None)


def test_who_has_lost_the_checkpoint_writes_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_log_storage(tmp_path.as_uri())
    token = storage.swap_checkpoint(b"1", None)
    storage.swap_checkpoint(b"2", token)

    def no_file(*_: object) -> None:
        raise AssertionError("a file was staged")

    monkeypatch.setattr(DirectoryStorage, "_staged", no_file)
    with pytest.raises(Superseded):
        storage.swap_checkpoint(b"3", token)


def test_an_s3_outage_is_an_outage(s3: ConditionalS3) -> None:
    storage = open_log_storage(s3.url, s3.options)
    s3.failing = 403
    with pytest.raises(LogUnavailable, match="tile/0/000"):
        storage.create("tile/0/000", b"one")
    with pytest.raises(LogUnavailable, match="tile/0/000"):
        storage.read("tile/0/000")
    with pytest.raises(LogUnavailable, match="list"):
        storage.folders()
    with pytest.raises(LogUnavailable, match="checkpoint"):
        storage.read_checkpoint()
    with pytest.raises(LogUnavailable, match="checkpoint"):
        storage.swap_checkpoint(b"1", None)


def test_an_answer_that_was_lost_is_not_taken_for_another_writer(s3: ConditionalS3) -> None:
    storage = open_log_storage(s3.url, s3.options)
    s3.lose = 1
    storage.create("tile/0/000", b"one")
    s3.lose = 1
    token = storage.swap_checkpoint(b"1", None)
    s3.lose = 1
    second = storage.swap_checkpoint(b"2", token)
    assert storage.read_checkpoint() == (b"2", second)
    assert s3.lose == 0


def test_of_many_writers_each_swap_goes_to_one(tmp_path: Path) -> None:
    """A counter in the checkpoint: an update that overwrote another would leave it too small."""
    open_log_storage(tmp_path.as_uri()).swap_checkpoint(b"0", None)

    def count(_: int) -> int:
        storage, won = open_log_storage(tmp_path.as_uri()), 0
        while won < 25:
            found = storage.read_checkpoint()
            assert found is not None
            try:
                storage.swap_checkpoint(b"%d" % (int(found[0]) + 1), found[1])
                won += 1
            except Superseded:
                continue
        return won

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, range(4))) == [25] * 4
    assert (tmp_path / "checkpoint").read_bytes() == b"100"


def test_leftovers_of_killed_writers_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    staging = tmp_path / ".staging"
    staging.mkdir()
    for name, age_s in (("old", 7200), ("new", 60)):
        (staging / name).write_bytes(b"half")
        when = (staging / name).stat().st_mtime - age_s
        os.utime(staging / name, (when, when))
    open_log_storage(tmp_path.as_uri()).create("tile/0/000", b"one")
    assert [path.name for path in staging.iterdir()] == ["new"]
