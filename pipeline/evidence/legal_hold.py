"""Legal holds: who keeps what from being erased, why and since when.

    holds/{tenant}/{sha256(media id), or "all"}/{hold id}.json             `Hold`
    holds/{tenant}/{sha256(media id), or "all"}/{hold id}.released.json    `Release`, which ends it

Neither is ever deleted: the history stays. Several holds on one media item are independent; one is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

from pydantic import Field

from pipeline.evidence.archive import media_digest
from pipeline.evidence.small_objects import keep_object, parse_object
from pipeline.media.errors import ContentMissing
from pipeline.media.objects import Objects
from schemas.base import Part
from schemas.types import Identifier, Text, Timestamp

HOLDS = "holds/"
_ALL = "all"
_RELEASED = ".released.json"
Reason = Annotated[Text, Field(min_length=1)]


class HoldUnknown(Exception):
    """No hold of that id."""


class Release(Part):
    """Who ended a hold, why and when."""

    actor: Identifier
    reason: Reason
    released_at: Timestamp


class Hold(Part):
    """Who set it, why and when. `media_id` None: everything of the tenant."""

    hold_id: UUID
    tenant: Identifier
    media_id: Identifier | None
    actor: Identifier
    reason: Reason
    set_at: Timestamp
    released: Release | None = None

    @property
    def key(self) -> str:
        """Its object."""
        scope = _ALL if self.media_id is None else media_digest(self.media_id)
        return f"{HOLDS}{self.tenant}/{scope}/{self.hold_id}.json"


class LegalHolds:
    """Set, release and ask. The store is asked each time: a hold counts from the moment it is set."""

    def __init__(self, objects: Objects, now: Callable[[], datetime]) -> None:
        """`now` is the wall clock, with a zone."""
        self._objects = objects
        self._now = now

    def set(self, tenant: str, media_id: str | None, actor: str, reason: str) -> Hold:
        """Hold one media item, or with None all of a tenant.

        Raises:
            pydantic.ValidationError: a malformed field, an empty reason included.
            StoreUnavailable: not set.
        """
        hold = Hold(hold_id=uuid4(), tenant=tenant, media_id=media_id, actor=actor, reason=reason, set_at=self._now())
        keep_object(self._objects, hold.key, hold)
        return hold

    def release(self, hold_id: UUID, actor: str, reason: str) -> Hold:
        """End one hold. One that was released already stays as it is.

        Raises:
            HoldUnknown: there is none of that id.
            pydantic.ValidationError: a malformed field, an empty reason included.
            StoreUnavailable: not released.
        """
        found = next((h for h in self.every() if h.hold_id == hold_id), None)
        if found is None:
            raise HoldUnknown(f"no hold {hold_id}; see `mediasieve hold list --all`")
        release = Release(actor=actor, reason=reason, released_at=self._now())
        keep_object(self._objects, found.key.removesuffix(".json") + _RELEASED, release)
        return self._read(found.key)

    def every(self) -> list[Hold]:
        """All that ever were, released ones too, oldest first. Raises ContentCorrupt and StoreUnavailable."""
        return sorted(self._below(HOLDS), key=lambda h: (h.set_at, str(h.hold_id)))

    def holding(self, tenant: str, media_id_sha256: str) -> list[Hold]:
        """Those in force on one media item, of the tenant's too, oldest first. Raises as `every`."""
        prefixes = sorted({f"{HOLDS}{tenant}/{_ALL}/", f"{HOLDS}{tenant}/{media_id_sha256}/"})
        found = (h for prefix in prefixes for h in self._below(prefix) if h.released is None)
        return sorted(found, key=lambda h: (h.set_at, str(h.hold_id)))

    def holding_all(self, tenant: str) -> list[Hold]:
        """Those in force on everything of a tenant, oldest first. Raises as `every`."""
        return [hold for hold in self.holding(tenant, _ALL) if hold.media_id is None]

    def _below(self, prefix: str) -> Iterator[Hold]:
        keys = [found.key for found in self._objects.list(prefix)]
        for key in keys:
            if not key.endswith(_RELEASED):
                yield self._read(key)

    def _read(self, key: str) -> Hold:
        hold = parse_object(Hold, self._objects.read(key), key)
        released = key.removesuffix(".json") + _RELEASED
        try:
            release = parse_object(Release, self._objects.read(released), released)
        except ContentMissing:
            return hold
        return hold.model_copy(update={"released": release})
