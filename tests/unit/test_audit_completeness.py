"""Kafka's records against the log's leaves, and which exit code says what."""

from __future__ import annotations

import pytest

from pipeline.evidence.log.errors import LogCorrupt, Superseded, Untrusted
from pipeline.streaming.transport import SourceFailed
from schemas.topics import Topic
from schemas.wire import UnknownMajorVersion
from tests.support.audit import AuditWorld
from workers.audit.completeness import compare
from workers.audit.errors import AuditContradiction, AuditGap
from workers.audit.worker import exit_code

A, B = b"a" * 32, b"b" * 32


def test_equal_sets_are_complete_whatever_markers_lie_between() -> None:
    found = compare("t", {0: A, 3: B, 9: A}, {0: A, 3: B, 9: A}, 0)
    assert (found.ok, found.compared, found.pending, found.detail) == (True, 3, 0, "")


def test_what_is_newer_than_the_last_leaf_is_pending() -> None:
    found = compare("t", {0: A, 3: B, 9: A}, {0: A}, 0)
    assert (found.ok, found.compared, found.pending) == (True, 1, 2)


def test_leaves_of_records_that_retention_removed_are_no_fault() -> None:
    found = compare("t", {3: B}, {0: A, 1: B, 3: B}, 3)
    assert (found.ok, found.compared) == (True, 1)


def test_leaves_that_were_logged_after_kafka_was_read_are_no_fault() -> None:
    assert compare("t", {0: A}, {0: A, 1: B}, 0).ok


def test_a_missing_a_foreign_and_a_differing_leaf_are_named_by_offset() -> None:
    found = compare("t", {0: A, 1: A, 4: A, 9: A}, {0: B, 2: A, 3: A, 4: A, 9: A}, 0)
    assert (found.ok, found.missing, found.foreign, found.differing) == (False, (1,), (2, 3), (0,))
    assert found.detail == "1 missing: 1; 2 foreign: 2, 3; 1 differing: 0"


def test_long_lists_are_cut() -> None:
    found = compare("t", dict.fromkeys(range(9), A) | {99: A}, {99: A}, 0)
    assert found.detail == "9 missing: 0, 1, 2, 3, 4, ..."


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownMajorVersion("2"), 6),
        (SourceFailed("x"), 7),
        (Superseded("x"), 8),
        (LogCorrupt("x", 3), 9),
        (Untrusted("x"), 9),
        (AuditContradiction("x"), 9),
        (AuditGap("x"), 10),
    ],
)
def test_every_reason_to_stop_has_its_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_a_record_of_a_newer_release_stops_the_worker_before_it_is_logged() -> None:
    world = AuditWorld()
    world.produce(1)
    world.broker.append(Topic.ERASURES.value, b'{"schema_version": "9.0"}')
    with pytest.raises(UnknownMajorVersion):
        world.settle()
    assert world.storage.under(f"{Topic.ERASURES}/0").read_checkpoint() is None
