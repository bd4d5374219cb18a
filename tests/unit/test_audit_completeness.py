"""Kafka's records against the log's leaves, and which exit code says what."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from pipeline.evidence.log.errors import LeafInvalid, LogCorrupt, Superseded, Untrusted
from pipeline.media.errors import ContentCorrupt
from pipeline.streaming.transport import SourceFailed
from schemas.topics import Topic
from schemas.wire import UnknownMajorVersion
from tests.support.audit import AuditWorld
from workers.audit.completeness import Held, _logged, compare
from workers.audit.errors import AuditContradiction, AuditGap
from workers.audit.worker import STOPS, exit_code

A, B = b"a" * 32, b"b" * 32


def held(digests: dict[int, bytes], low: int = 0, due: Collection[int] = ()) -> Held:
    return Held(digests, set(due), low)


def test_equal_sets_are_complete_whatever_markers_lie_between() -> None:
    found = compare("t", held({0: A, 3: B, 9: A}), {0: A, 3: B, 9: A}, 10)
    assert (found.ok, found.compared, found.pending, found.detail) == (True, 3, 0, "")


def test_what_is_newer_than_the_last_leaf_is_pending() -> None:
    found = compare("t", held({0: A, 3: B, 9: A}), {0: A}, 10)
    assert (found.ok, found.compared, found.pending) == (True, 1, 2)


def test_what_must_have_its_leaf_by_now_is_missing_however_short_the_log_is() -> None:
    records = dict.fromkeys(range(100), A)
    for log in ({}, {0: A}):
        found = compare("t", held(records, due=range(60)), log, 100)
        assert (found.ok, found.pending, found.missing) == (False, 40, tuple(range(len(log), 60)))


def test_leaves_that_were_logged_after_kafka_was_read_are_no_fault() -> None:
    assert compare("t", held({0: A}), {0: A, 1: B}, 2).ok


def test_a_leaf_beyond_kafkas_end_is_foreign() -> None:
    found = compare("t", held({0: A}), {0: A, 1: B, 7: B}, 7)
    assert (found.ok, found.foreign) == (False, (7,))


def test_a_missing_a_foreign_and_a_differing_leaf_are_named_by_offset() -> None:
    found = compare("t", held({0: A, 1: A, 4: A, 9: A}), {0: B, 2: A, 3: A, 4: A, 9: A}, 10)
    assert (found.ok, found.missing, found.foreign, found.differing) == (False, (1,), (2, 3), (0,))
    assert found.detail == "1 missing: 1; 2 foreign: 2, 3; 1 differing: 0"


def test_long_lists_are_cut() -> None:
    found = compare("t", held(dict.fromkeys(range(9), A) | {99: A}), {99: A}, 100)
    assert found.detail == "9 missing: 0, 1, 2, 3, 4, ..."


def test_leaves_below_what_kafka_keeps_are_not_held_in_memory() -> None:
    world = AuditWorld()
    world.produce(8)
    world.settle()
    assert set(_logged(world.place, world.keys, Topic.BLOCK, 0, 6)) == {6, 7}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownMajorVersion("2"), 6),
        (SourceFailed("x"), 7),
        (Superseded("x"), 8),
        (LogCorrupt("x", 3), 9),
        (LeafInvalid("x"), 9),
        (ContentCorrupt("x"), 9),
        (Untrusted("x"), 9),
        (AuditContradiction("x"), 9),
        (AuditGap("x"), 10),
    ],
)
def test_every_reason_to_stop_has_its_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code
    assert isinstance(error, STOPS)


def test_a_record_of_a_newer_release_stops_the_worker_before_it_is_logged() -> None:
    world = AuditWorld()
    world.produce(1)
    world.broker.append(Topic.ERASURES.value, b'{"schema_version": "9.0"}')
    with pytest.raises(UnknownMajorVersion):
        world.settle()
    assert world.offsets(f"{Topic.ERASURES}/0") == []
