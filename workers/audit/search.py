"""Find the leaf of a decision, a media item or a Kafka record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.tiles import TILE_WIDTH
from schemas.topics import AUDITED_TOPICS, DECISION_TOPICS, Topic
from workers.audit.log import LogPlace


@dataclass(frozen=True, slots=True)
class Found:
    """A leaf and where it lies; `reader` sees the checkpoint as of which it was found."""

    tree: str
    index: int
    leaf: Leaf
    reader: LogReader


def find_newest(place: LogPlace, keys: KeySet, name: str, tenant: str | None = None) -> Found | None:
    """The leaf of a decision uid or a media id: of the decision with the highest sequence, else of a review.

    Reads each tree from its end up to the first leaf of that name. Decisions on one media id under several uids have no
    order between the trees; then it is the newest of one of them. Tenants may use the same media id: `tenant` None
    takes any.

    Raises:
        LogCorrupt, Untrusted, LogUnavailable: see LogReader.
    """
    decisions = [
        found for tree in place.trees(DECISION_TOPICS.values()) if (found := _last_in(tree, place, keys, name, tenant))
    ]
    if decisions:
        return max(decisions, key=lambda found: found.leaf.sequence or 0)
    others = place.trees(topic for topic in AUDITED_TOPICS if topic not in DECISION_TOPICS.values())
    return next((found for tree in others if (found := _last_in(tree, place, keys, name, tenant))), None)


def _last_in(tree: str, place: LogPlace, keys: KeySet, name: str, tenant: str | None) -> Found | None:
    needles = _needles(name)
    reader = place.reader(tree, keys)
    for index, entry in _backwards(reader):
        if any(needle.encode() in entry for needle in needles):
            leaf = Leaf.parse(entry)
            if needles & {leaf.decision_uid, leaf.media_id_sha256} and tenant in (None, leaf.tenant):
                return Found(tree, index, leaf, reader)
    return None


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


def _needles(name: str) -> set[str]:
    """What a leaf of that name holds: the digest of a media id, which may look like a uid, and the uid itself."""
    found = {hashlib.sha256(name.encode()).hexdigest()}
    with suppress(ValueError):
        found.add(str(UUID(name)))
    return found
