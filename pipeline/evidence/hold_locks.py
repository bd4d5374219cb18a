"""Legal holds carried over to the objects themselves, where the store knows such a thing."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.evidence.archive import Archive, ArchivedDecision
from pipeline.evidence.legal_hold import Hold, LegalHolds
from pipeline.evidence.object_lock import ObjectLock
from pipeline.evidence.payload import Payload


def align_object_holds(archive: Archive, holds: LegalHolds, lock: ObjectLock, changed: Hold) -> int:
    """After `changed` was set or released, set or lift the hold of each object that it concerns.

    An object keeps its hold while any record that needs it is held. Safe to run again.

    Returns:
        How many objects were looked at; 0 where the store has no such thing.

    Raises:
        ContentCorrupt, StoreUnavailable: half done; do it again.
    """
    if not lock.supports():
        return 0
    seen: set[str] = set()
    for record in _concerned(archive, changed):
        for payload in (*record.payloads, record.record):
            if payload.key not in seen:
                seen.add(payload.key)
                lock.hold(payload.key, on=_held(archive, holds, payload))
    return len(seen)


def _concerned(archive: Archive, changed: Hold) -> Iterator[ArchivedDecision]:
    if changed.media_id is None:
        for entry in archive.live(changed.tenant):
            if not archive.is_erased(entry.place):
                yield archive.at(entry.place)
        return
    for uid in archive.find(changed.tenant, changed.media_id):
        yield from archive.unerased(uid)


def _held(archive: Archive, holds: LegalHolds, payload: Payload) -> bool:
    places = sorted(archive.needed_by(payload.tenant, payload.sha256))
    records = (archive.at(place) for place in places if not archive.is_erased(place))
    return any(holds.holding(record.tenant, record.media_id_sha256) for record in records)
