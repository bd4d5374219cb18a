"""Find the leaf of a decision, a media item or a Kafka record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.tiles import TILE_WIDTH
from schemas.topics import Topic
from workers.audit.log import LogPlace


@dataclass(frozen=True, slots=True)
class Found:
    """A leaf and where it lies; `reader` sees the checkpoint as of which it was found."""

    tree: str
    index: int
    leaf: Leaf
    reader: LogReader


def find_by_name(place: LogPlace, keys: KeySet, name: str, tenant: str | None = None) -> Iterator[Found]:
    """Leaves of a decision uid, else of a media id; the newest of each tree first, decisions before reviews.

    Tenants may use the same media id: `tenant` None takes any.

    Raises:
        LogCorrupt, Untrusted, LogUnavailable: see LogReader.
    """
    needle = _decision_uid(name) or hashlib.sha256(name.encode()).hexdigest()
    for tree in place.trees():
        reader = place.reader(tree, keys)
        for index, entry in _backwards(reader):
            if needle.encode() in entry:
                leaf = Leaf.parse(entry)
                if needle in (leaf.decision_uid, leaf.media_id_sha256) and tenant in (None, leaf.tenant):
                    yield Found(tree, index, leaf, reader)


def find_by_place(place: LogPlace, keys: KeySet, topic: Topic, partition: int, offset: int) -> Found | None:
    """The leaf that stands for a Kafka record, by bisection: offsets rise. A gap's leaf stands for all in the gap.

    Raises:
        NotInLog: the partition has no tree.
        LogCorrupt, Untrusted, LogUnavailable: see LogReader.
    """
    tree = f"{topic}/{partition}"
    reader = place.reader(tree, keys)
    low, high = 0, reader.checkpoint().size
    while low < high:
        middle = (low + high) // 2
        leaf = Leaf.parse(reader.entry(middle))
        first = leaf.offset if leaf.gap_from is None else leaf.gap_from
        if first <= offset <= leaf.offset:
            return Found(tree, middle, leaf, reader)
        if leaf.offset < offset:
            low = middle + 1
        else:
            high = middle
    return None


def _backwards(reader: LogReader) -> Iterator[tuple[int, bytes]]:
    stop = reader.checkpoint().size
    while stop:
        start = (stop - 1) // TILE_WIDTH * TILE_WIDTH
        entries = list(reader.entries(start, stop))
        for at in range(len(entries) - 1, -1, -1):
            yield start + at, entries[at]
        stop = start


def _decision_uid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None
