"""Reading to the end of topics that others write to at the same time."""

from __future__ import annotations

from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.transport import RawRecord, TopicPartition


class Growing(RecordReader):
    """Two partitions: the first is at its end, gets another record, and never comes to an end again."""

    def __init__(self) -> None:
        self._behind = {("t", 0), ("t", 1)}
        self._where = "here"
        self._step = 0

    def poll(self, timeout_s: float) -> RawRecord | None:
        self._step += 1
        assert self._step < 10, "reads for ever"
        if self._step == 1:
            self._behind.discard(("t", 0))
            return None
        if self._step == 3:
            self._behind.discard(("t", 1))
            return None
        self._behind.add(("t", 0))
        return RawRecord(TopicPartition("t", 0), self._step, None, b"")


def test_the_end_of_each_partition_is_enough_where_they_are_never_all_at_their_end() -> None:
    assert len(list(Growing().to_end())) == 1
