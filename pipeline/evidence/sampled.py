"""What is kept of media that passed at stage 1 and was drawn for the audit sample, found by its media id.

Such a pass is not archived, so without these notes nobody could erase its bytes on request. One empty object a payload:

    sampled/{tenant}/{sha256(media id)}/{key of the payload}
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from pipeline.evidence.payload import Payload
from pipeline.media.errors import ContentCorrupt, ContentMissing
from pipeline.media.objects import Objects

SAMPLED = "sampled/"


class SampledPayloads:
    """Put-if-absent: noting again changes nothing. Every method raises StoreUnavailable."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def note(self, tenant: str, media_sha256: str, payloads: Iterable[Payload]) -> None:
        """Before the payloads themselves where that can be, so that none lies there unnoted."""
        for payload in payloads:
            key = f"{SAMPLED}{tenant}/{media_sha256}/{payload.key}"
            self._objects.create(key, b"")
            self._objects.sync(key)

    def of_media(self, tenant: str, media_sha256: str) -> tuple[Payload, ...]:
        """Of one media item, sorted by key. Raises ContentCorrupt for a name that is none."""
        prefix = f"{SAMPLED}{tenant}/{media_sha256}/"
        return tuple(sorted((_payload(o.key) for o in self._objects.list(prefix)), key=lambda p: p.key))

    def media_of(self, tenant: str) -> dict[str, set[str]]:
        """Digests of the media ids of each payload's key: whose it is. Raises ContentCorrupt."""
        found: dict[str, set[str]] = {}
        for each in self._objects.list(f"{SAMPLED}{tenant}/"):
            found.setdefault(_payload(each.key).key, set()).add(each.key.split("/", 3)[2])
        return found

    def forget(self, tenant: str, media_sha256: str, payloads: Iterable[Payload]) -> None:
        """Drop notes that are no longer true."""
        for payload in payloads:
            self._objects.delete(f"{SAMPLED}{tenant}/{media_sha256}/{payload.key}")

    def forget_gone(self, older_than: timedelta, now: datetime) -> None:
        """Drop the notes of that age whose payload is not there any more. Raises ContentCorrupt."""
        for each in list(self._objects.list(SAMPLED)):
            if now - each.modified >= older_than and not self._is_there(_payload(each.key)):
                self._objects.delete(each.key)

    def _is_there(self, payload: Payload) -> bool:
        try:
            self._objects.modified(payload.key)
        except ContentMissing:
            return False
        return True


def _payload(key: str) -> Payload:
    parts = key.split("/", 3)
    payload = Payload.of_key(parts[3]) if len(parts) == 4 else None
    if payload is None or payload.tenant != parts[1]:
        raise ContentCorrupt(f"{key}: expected {SAMPLED}tenant/sha256/payload; remove the object")
    return payload
