"""Entries of a partition without a broker."""

from __future__ import annotations

from typing import Any

from pipeline.streaming.partitions import Entry, State
from pipeline.streaming.stage import Item
from pipeline.streaming.transport import Headers, RawRecord, TopicPartition
from schemas.topics import Topic

TP = TopicPartition(Topic.INGEST.value, 0)


def raw(offset: int = 0, value: bytes = b"{}", *, tp: TopicPartition = TP, headers: Headers = ()) -> RawRecord:
    return RawRecord(tp, offset, b"k", value, headers, 1_700_000_000_000)


def item(media_id: str = "m-1", *, tenant: str = "default", value: Any = None, attempt: int = 1) -> Item[Any]:
    return Item(value, media_id, tenant, "test", f"{TP.topic}-0-0", "0" * 31 + "1", attempt, 1_700_000_000.0)


def entry(
    offset: int = 0,
    *,
    tp: TopicPartition = TP,
    epoch: int = 1,
    lane: str = "main",
    tenant: str = "default",
    cost: int = 1,
    polled_at_s: float = 0.0,
    not_before_s: float = 0.0,
    state: State = State.WAITING,
) -> Entry:
    made = Entry(raw(offset, tp=tp), epoch, lane, polled_at_s, item=item(f"m-{offset}", tenant=tenant))
    made.cost, made.not_before_s, made.state = cost, not_before_s, state
    return made
