"""Reading a log as of one checkpoint, and refusing the next one when it goes back."""

from __future__ import annotations

import pytest

from pipeline.evidence.log.checkpoint import open_checkpoint
from pipeline.evidence.log.errors import LogCorrupt, NotInLog
from pipeline.evidence.log.merkle import root_of
from pipeline.evidence.log.storage import LogStorage, open_log_storage
from tests.support.audit_logs import KEYS, filled, leaves, reader


@pytest.fixture
def storage() -> LogStorage:
    return open_log_storage("memory://")


def test_a_reader_of_an_older_checkpoint_reads_on_when_its_unfinished_tiles_are_gone(storage: LogStorage) -> None:
    filled(storage, 200)
    behind = reader(storage)
    head = behind.checkpoint()
    filled(storage, 300)
    assert list(behind.entries(0, 200)) == leaves(0, 200)
    assert root_of(behind._tree().tile(0, 0)) == head.root
    behind.inclusion_proof(150)


def test_a_reader_refuses_a_log_that_went_back(storage: LogStorage) -> None:
    filled(storage, 10)
    old = storage.read_checkpoint()
    filled(storage, 20)
    new = storage.read_checkpoint()
    assert old is not None
    assert new is not None
    watching = reader(storage)
    watching.checkpoint()
    storage.swap_checkpoint(old[0], new[1])
    for _ in range(2):
        with pytest.raises(LogCorrupt, match="rolled back from 20 to 10"):
            watching.checkpoint()
    assert open_checkpoint(watching.signed_checkpoint(), KEYS).size == 20


def test_what_is_not_there_cannot_be_asked_for(storage: LogStorage) -> None:
    filled(storage, 10)
    here = reader(storage)
    assert list(here.entries(5, 5)) == list(here.entries(10, 10)) == []
    for ask in (
        lambda: here.entry(10),
        lambda: here.entry(-1),
        lambda: list(here.entries(5, 11)),
        lambda: list(here.entries(6, 5)),
        lambda: list(here.entries(11, 11)),
        lambda: here.inclusion_proof(5, 5),
        lambda: here.inclusion_proof(5, 11),
        lambda: here.consistency_proof(5, 11),
        lambda: here.consistency_proof(6, 5),
    ):
        with pytest.raises(NotInLog):
            ask()
