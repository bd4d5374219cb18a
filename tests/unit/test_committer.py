"""Finished entries into one commit, and a failed commit into what must happen next."""

from __future__ import annotations

import pytest

from pipeline.streaming.committer import Committer
from pipeline.streaming.memory import MemoryBroker, MemoryLedger, MemorySource
from pipeline.streaming.partitions import Entry, Note, Partitions, State
from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.transport import CommitAborted, CommitPoint, Fenced, OutcomeUnknown, OutRecord, TopicPartition
from tests.support.entries import TP, entry
from tests.support.streaming import FakeClock

OTHER = TopicPartition(TP.topic, 1)


class World:
    """A committer over memory, with two assigned partitions."""

    def __init__(self, *, committed: CommitPoint | None = None) -> None:
        self.broker = MemoryBroker(partitions=2)
        if committed:
            self.broker.committed[TP] = committed
        self.ledger = MemoryLedger(self.broker)
        self.clock = FakeClock()
        self.partitions = Partitions()
        self.log = self.partitions.assign(TP, committed)
        self.other = self.partitions.assign(OTHER, None)
        self.committer = Committer(
            MemorySource(self.broker), self.ledger, self.partitions, self.clock, RunnerSettings(careful_window=4)
        )

    def hold(self, *states: State, tp: TopicPartition = TP, first: int = 0) -> list[Entry]:
        log = self.partitions.get(tp)
        assert log is not None
        entries = [entry(first + i, tp=tp, epoch=log.epoch, state=state) for i, state in enumerate(states)]
        for e in entries:
            e.out = (OutRecord("out", None, f"{tp.partition}-{e.raw.offset}".encode()),)
            self.partitions.add(e)
        return entries

    @property
    def point(self) -> CommitPoint | None:
        return self.broker.committed.get(TP)

    @property
    def out(self) -> list[bytes]:
        return sorted(self.broker.values("out"))


NOW_S = 1_000.0
D, W, F = State.DONE, State.WAITING, State.IN_FLIGHT


def test_nothing_to_say_makes_no_transaction() -> None:
    world = World()
    world.hold(W, D)
    assert world.committer.commit_finished() == ()
    assert world.ledger.commits == []


def test_finished_prefixes_of_all_partitions_go_in_one_commit() -> None:
    world = World()
    done = [*world.hold(D, D, W)[:2], *world.hold(D, tp=OTHER)]
    assert world.committer.commit_finished() == tuple(done)
    assert len(world.ledger.commits) == 1
    assert world.broker.committed == {TP: CommitPoint(2), OTHER: CommitPoint(1)}
    assert world.out == [b"0-0", b"0-1", b"1-0"]
    assert [e.raw.offset for e in world.log.entries] == [2]
    assert world.committer.commits == 1


def test_only_the_partitions_asked_for() -> None:
    world = World()
    world.hold(D)
    world.hold(D, tp=OTHER)
    world.committer.commit_finished([OTHER])
    assert world.broker.committed == {OTHER: CommitPoint(1)}
    assert world.out == [b"1-0"]


def test_what_was_committed_is_not_committed_again() -> None:
    world = World()
    world.hold(D)
    world.committer.commit_finished()
    assert world.committer.commit_finished() == ()
    assert len(world.ledger.commits) == 1


def test_a_mark_notes_the_head_before_the_work() -> None:
    world = World()
    world.hold(W, W, first=3)
    assert world.committer.mark([world.log], solo=False)
    assert world.point == CommitPoint(3, Note(begun=5).encode())
    assert world.log.marked
    assert world.log.committed == 3
    assert world.out == []


def test_a_solo_mark_counts_up_and_a_plain_one_begins_again() -> None:
    world = World(committed=CommitPoint(0, Note(begun=3, solo=1).encode()))
    world.hold(W)
    world.committer.mark([world.log], solo=True)
    assert world.log.note == Note(begun=3, solo=2)
    world.committer.mark([world.log], solo=False)
    assert world.log.note == Note(begun=1, solo=0)


def test_a_mark_announces_a_window_at_most() -> None:
    world = World()
    world.hold(*[W] * 9, first=3)
    world.committer.mark([world.log], solo=False)
    assert world.log.note == Note(begun=7)


def test_after_a_record_run_alone_the_next_ones_need_a_mark_of_their_own() -> None:
    world = World()
    world.hold(W, W, W)
    world.log.entries[0].careful = True
    world.committer.mark([world.log], solo=True)
    world.log.entries[0].state = D
    world.committer.commit_finished()
    assert world.log.must_be_marked(NOW_S)
    world.committer.mark([world.log], solo=False)
    assert world.point == CommitPoint(1, Note(begun=3).encode())


def test_an_aborted_mark_leaves_everything_as_it_was() -> None:
    world = World()
    world.hold(W)
    world.ledger.faults.append(CommitAborted("x"))
    assert not world.committer.mark([world.log], solo=True)
    assert (world.log.marked, world.log.note, world.log.committed, world.point) == (False, Note(), None, None)


def test_a_commit_stays_open_until_the_partition_leaves() -> None:
    world = World()
    world.hold(W, W)
    world.committer.mark([world.log], solo=False)
    world.log.entries[0].state = D
    world.committer.commit_finished()
    assert world.point == CommitPoint(1, Note(begun=2).encode())
    world.log.entries[0].state = D
    world.committer.commit_finished(leaving_in_s=5.0)
    assert world.point == CommitPoint(2, "")


def test_a_commit_tells_which_records_are_in_flight() -> None:
    world = World()
    world.hold(D, F, W, F, W)
    world.committer.mark([world.log], solo=False)
    world.committer.commit_finished()
    assert world.point == CommitPoint(1, Note(begun=4).encode())


def test_a_finished_record_clears_the_solo_count() -> None:
    world = World(committed=CommitPoint(0, Note(begun=1, solo=1).encode()))
    world.hold(W)
    world.committer.mark([world.log], solo=True)
    world.log.entries[0].state = D
    world.committer.commit_finished()
    assert world.log.note.solo == 0


def test_leaving_in_good_order_with_nothing_new_says_so() -> None:
    world = World()
    world.hold(W)
    world.committer.mark([world.log], solo=False)
    world.committer.commit_finished(leaving_in_s=5.0)
    assert world.point == CommitPoint(0, "")


def test_leaving_in_good_order_while_a_record_runs_warns_nobody() -> None:
    world = World()
    world.hold(W, F)
    world.committer.mark([world.log], solo=False)
    world.log.entries[0].state = D
    world.committer.commit_finished(leaving_in_s=5.0)
    assert world.point == CommitPoint(1, ""), "its drop is no death"


def test_leaving_before_the_careful_records_are_done_passes_the_warning_on() -> None:
    world = World(committed=CommitPoint(0, Note(begun=3).encode()))
    world.hold(W, W, W)
    world.committer.mark([world.log], solo=True)
    world.log.entries[0].state = D
    world.committer.commit_finished(leaving_in_s=5.0)
    assert world.point == CommitPoint(1, Note(begun=3).encode())


def test_leaving_with_a_record_that_killed_a_process_leaves_the_note_open() -> None:
    world = World()
    (suspect,) = world.hold(W)
    suspect.kills = 1
    world.committer.mark([world.log], solo=False)
    world.committer.commit_finished(leaving_in_s=5.0)
    assert world.point == CommitPoint(0, Note(begun=1).encode())


def test_leaving_unmarked_commits_nothing() -> None:
    world = World()
    world.hold(W)
    world.committer.commit_finished(leaving_in_s=5.0)
    assert world.ledger.commits == []


@pytest.mark.parametrize(("accept", "kept"), [(1, 0), (2, 0), (3, 3)])
def test_an_acceptance_lasts_until_its_offset_is_committed(accept: int, kept: int) -> None:
    world = World(committed=CommitPoint(0, Note(accept=accept).encode()))
    world.hold(D, D, W)
    world.committer.commit_finished()
    assert world.point == CommitPoint(2, Note(accept=kept).encode())
    assert world.log.note.accept == kept


def test_an_abort_keeps_the_results_in_hand() -> None:
    world = World()
    world.hold(D)
    world.ledger.faults.append(CommitAborted("x"))
    assert world.committer.commit_finished() is None
    assert (world.committer.aborts, world.committer.commits, len(world.log.entries)) == (1, 0, 1)
    world.committer.commit_finished()
    assert world.out == [b"0-0"]


def test_aborts_in_a_row_end_the_process_only_after_the_time_given() -> None:
    world = World()
    world.hold(D)
    world.ledger.faults.extend(CommitAborted("again") for _ in range(4))
    world.committer.commit_finished()
    world.clock.advance(60.0)
    world.committer.commit_finished()
    world.clock.advance(0.1)
    with pytest.raises(Fenced, match="aborted for 60 s on end, the last time: again"):
        world.committer.commit_finished()


def test_a_good_commit_between_aborts_starts_the_time_again() -> None:
    world = World()
    world.ledger.faults.extend([CommitAborted("x"), None, CommitAborted("y")])
    world.hold(D)
    world.committer.commit_finished()
    world.clock.advance(59.0)
    world.committer.commit_finished()
    world.hold(D, first=1)
    world.clock.advance(59.0)
    world.committer.commit_finished()
    assert world.committer.aborts == 2


def test_an_unknown_outcome_reads_again_from_what_the_broker_says() -> None:
    world = World()
    (done,) = world.hold(D)
    world.ledger.faults.append(OutcomeUnknown("timed out"))
    assert world.committer.commit_finished() is None
    assert world.committer.unknown == 1
    assert not world.partitions.is_current(done)
    log = world.partitions.get(TP)
    assert log is not None
    assert (log.committed, len(log.entries)) == (1, 0), "the memory ledger commits before it raises"


def test_an_unknown_outcome_on_leaving_is_left_to_the_next_reader() -> None:
    world = World()
    (done,) = world.hold(D)
    world.ledger.faults.append(OutcomeUnknown("timed out"))
    assert world.committer.commit_finished(leaving_in_s=3.0) is None
    assert world.committer.unknown == 1
    assert world.partitions.is_current(done), "nothing is read again by a member that leaves"


@pytest.mark.parametrize(("leaving_in_s", "timeout_s"), [(None, 10.0), (60.0, 10.0), (3.0, 3.0), (0.0, 1.0)])
def test_a_commit_has_its_own_time_or_what_is_left_of_the_revoke(
    leaving_in_s: float | None, timeout_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.hold(D)
    given_s: list[float] = []
    monkeypatch.setattr(world.ledger, "commit", lambda out, offsets, member, deadline: given_s.append(deadline.left_s))
    world.committer.commit_finished(leaving_in_s=leaving_in_s)
    assert given_s == [timeout_s]


def test_a_rewind_is_no_crash_and_keeps_its_mark() -> None:
    world = World()
    world.hold(W)
    world.ledger.faults.append(OutcomeUnknown("timed out"))
    assert not world.committer.mark([world.log], solo=False)
    log = world.partitions.get(TP)
    assert log is not None
    assert (log.marked, log.careful_until) == (True, 0)


def test_fenced_propagates() -> None:
    world = World()
    world.hold(D)
    world.ledger.faults.append(Fenced("zombie"))
    with pytest.raises(Fenced, match="zombie"):
        world.committer.commit_finished()
