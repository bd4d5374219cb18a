"""Erasing what a decision was made on, while the proof of what was decided stays.

The order makes a crash at any point harmless: the erasure is announced first; then the payloads go, each key before
its object; then the records, by which a repetition knows whose they are; the mark that all is done comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import uuid5

import structlog

from pipeline.evidence.archive import Archive, ArchivedDecision, Erased, media_digest
from pipeline.evidence.erasure_plan import ErasurePlan, ErasureResult
from pipeline.evidence.in_flight import longest_flight
from pipeline.evidence.legal_hold import LegalHolds
from pipeline.evidence.object_lock import LockState, ObjectLock
from pipeline.evidence.payload import Payload, digests
from pipeline.evidence.sampled import SampledPayloads
from pipeline.media.content_store import FRESH_FOR
from pipeline.media.envelope import HEADER_BYTES, SEALED, read_header
from pipeline.media.errors import ContentCorrupt, ContentMissing, StoreUnavailable
from pipeline.media.key_store import KeyStore
from pipeline.media.objects import Objects
from schemas.erasure import Erasure, ErasureCause
from schemas.ocsf import decision_from_finding
from schemas.wire import UnknownMajorVersion, WireError

log = structlog.get_logger(__name__)

_MAX_DIGESTS = 64
_SKEW = timedelta(hours=1)
"""Between the store's clock and a worker's."""


class ErasureRefused(Exception):
    """Nothing was erased; the text says what stands against it."""


class ErasureJournal(Protocol):
    """Where erasures are announced: the topic `evidence.erasures`, from which the audit log takes them."""

    def announce(self, erasure: Erasure) -> None:
        """Return once the record is safe; raise when it may not be."""


@dataclass(frozen=True, slots=True)
class Vault:
    """Where payloads and their keys lie. `keys` None: nothing is encrypted, erasing is deleting."""

    objects: Objects
    keys: KeyStore | None
    lock: ObjectLock

    def obstacle(self, payload: Payload, now: datetime) -> str | None:
        """Why the payload must not, or cannot, be made unreadable now; None: nothing stands against it.

        A lock until a time does not keep a key from being destroyed, a legal hold does.

        Raises:
            StoreUnavailable: try again later.
        """
        return self._obstacle(payload, self._state(payload), now)

    def locked_until(self, payload: Payload, now: datetime) -> datetime | None:
        """When the object may be deleted, where that is later than now. Raises StoreUnavailable."""
        until = self._state(payload).until
        return until if until is not None and now < until else None

    def put_at(self, payload: Payload) -> datetime | None:
        """When the object was last put; None when it is not there. Raises StoreUnavailable."""
        try:
            return self.objects.modified(payload.key)
        except ContentMissing:
            return None

    def destroy(self, payload: Payload, now: datetime) -> bool:
        """Destroy the key, then the object. False: the object stays, unreadable, until its lock is over.

        An object that was put again meanwhile, under a key that lives, stays too: it is not what was to go.

        Raises:
            StoreUnavailable: half done, or something stands against it since a moment ago; do it again.
        """
        state = self._state(payload)
        if (obstacle := self._obstacle(payload, state, now)) is not None:
            raise StoreUnavailable(f"{obstacle}, since a moment ago: do it again")
        if self.keys is not None:
            self.keys.destroy(payload.tenant, payload.sha256)
        if state.forbids(now):
            return False
        if not self._came_again(payload):
            (self.lock if self.lock.supports() else self.objects).delete(payload.key)
        return True

    def _state(self, payload: Payload) -> LockState:
        return self.lock.state(payload.key) if self.lock.supports() else LockState()

    def _obstacle(self, payload: Payload, state: LockState, now: datetime) -> str | None:
        if state.held:
            return f"{payload.key} is under a legal hold in the store"
        if state.forbids(now) and (why := self._readable_for_ever(payload)):
            return f"{payload.key} is locked until {state.until} and {why}"
        return None

    def _readable_for_ever(self, payload: Payload) -> str | None:
        """Why destroying keys does not make what is locked unreadable: stored before there were keys, for instance."""
        if self.keys is None:
            return "has no key that could be destroyed"
        if self.keys.state(payload.tenant, payload.sha256) == "none":
            return f"has no key in {self.keys.base} that could be destroyed"
        starts = self.lock.starts(payload.key, HEADER_BYTES)
        if all(_is_sealed(start, payload.key, size) for start, size in starts):
            return None
        return "a version of it lies there in plain"

    def _came_again(self, payload: Payload) -> bool:
        try:
            start, size = self.objects.read_start(payload.key, HEADER_BYTES)
            generation = read_header(start, payload.key, size).generation
        except (ContentMissing, ContentCorrupt):
            return False
        return (
            self.keys is not None
            and isinstance(generation, int)
            and self.keys.lives(payload.tenant, payload.sha256, generation)
        )


def _is_sealed(start: bytes, key: str, size: int) -> bool:
    try:
        return read_header(start, key, size).alg == SEALED
    except ContentCorrupt:
        return False


class Eraser:
    """Plans and carries out, one media item at a time."""

    def __init__(
        self,
        archive: Archive,
        vault: Vault,
        holds: LegalHolds,
        journal: ErasureJournal,
        now: Callable[[], datetime],
    ) -> None:
        """`now` is the wall clock, with a zone."""
        self._archive = archive
        self._vault = vault
        self._holds = holds
        self._journal = journal
        self._now = now
        self._sampled = SampledPayloads(vault.objects)

    def plan(
        self, records: Collection[ArchivedDecision], gone: Collection[str] = (), *, spare_in_flight: bool = False
    ) -> ErasurePlan:
        """What erasing these records means; reads only.

        Args:
            records: of one tenant and media id, at least one, none erased.
            gone: places of further records to be taken as erased, for a dry run.
            spare_in_flight: keep payloads that were put again since, perhaps for an item without a decision yet.
                Should none come, the sweep removes them.

        Raises:
            StoreUnavailable: try again later.
        """
        ordered = tuple(sorted(records, key=lambda r: r.place))
        spared = self._in_flight(ordered) if spare_in_flight else set()
        return self._plan(ordered[0].tenant, ordered[0].media_id_sha256, ordered, gone=gone, spared=spared)

    def plan_media(self, tenant: str, media_id: str, records: Collection[ArchivedDecision]) -> ErasurePlan:
        """What erasing a media item means: these records, perhaps none, and what was kept for the audit sample.

        Raises:
            ContentCorrupt, StoreUnavailable: as `plan`.
        """
        media = media_digest(media_id)
        ordered = tuple(sorted(records, key=lambda r: r.place))
        sampled = self._sampled.of_media(tenant, media)
        return self._plan(tenant, media, ordered, sampled=sampled, media_id=media_id)

    def _plan(
        self,
        tenant: str,
        media: str,
        ordered: tuple[ArchivedDecision, ...],
        *,
        sampled: tuple[Payload, ...] = (),
        media_id: str = "",
        gone: Collection[str] = (),
        spared: Collection[str] = (),
    ) -> ErasurePlan:
        mine = {r.place for r in ordered} | set(gone)
        named = sorted({p for r in ordered for p in r.payloads} | set(sampled), key=lambda p: p.key)
        # The records come last: a repetition reads from them whose payloads they are.
        named += [p for p in dict.fromkeys(r.record for r in ordered) if p not in named]
        needed = {sha256 for sha256 in digests(named) if self._archive.needs(tenant, sha256, mine)}.union(spared)
        payloads = tuple(p for p in named if p.sha256 not in needed)
        return ErasurePlan(
            tenant=tenant,
            media_id_sha256=media,
            records=ordered,
            payloads=payloads,
            kept=tuple(p for p in named if p.sha256 in needed),
            obstacle=self._obstacle(tenant, media, payloads),
            sampled=sampled,
            media_id=media_id,
        )

    def carry_out(self, plan: ErasurePlan, cause: ErasureCause, actor: str, detail: str) -> ErasureResult:
        """Announce, destroy, mark. Doing it again after a crash ends in the same state.

        Raises:
            ErasureRefused: a legal hold or a lock stands against it; nothing was done.
            StoreUnavailable, or what the journal raises: half done; do it again.
        """
        obstacle = self._obstacle(plan.tenant, plan.media_id_sha256, plan.payloads)
        if obstacle is not None:
            raise ErasureRefused(obstacle)
        now = self._now()
        for erasure in self._announcements(plan, cause, actor, detail, now):
            self._journal.announce(erasure)
        locked = tuple(p.key for p in plan.payloads if not self._vault.destroy(p, now))
        # Before the records: they are what a repetition is recognised by.
        self._sampled.forget(plan.tenant, plan.media_id_sha256, plan.sampled)
        mark = Erased(erasure_id=plan.uid(cause), cause=cause, actor=actor, detail=detail, erased_at=now)
        for record in plan.records:
            self._archive.mark_erased(record, mark)
        log.info("erased", erasure_id=str(mark.erasure_id), cause=cause.value, records=plan.places)
        return ErasureResult(mark.erasure_id, locked)

    def _in_flight(self, records: Collection[ArchivedDecision]) -> set[str]:
        """Digests of payloads that were put after all these decisions, and not too long ago."""
        since = max(max(r.decided_at for r in records) + _SKEW, self._now() - longest_flight() - FRESH_FOR)
        payloads = {p for r in records for p in r.payloads}
        return {p.sha256 for p in payloads if (at := self._vault.put_at(p)) is not None and at > since}

    def _obstacle(self, tenant: str, media: str, payloads: Iterable[Payload]) -> str | None:
        holds = self._holds.holding(tenant, media)
        if holds:
            return f"legal hold {holds[0].hold_id} of {holds[0].actor} since {holds[0].set_at}: {holds[0].reason}"
        now = self._now()
        return next((found for p in payloads if (found := self._vault.obstacle(p, now)) is not None), None)

    def _announcements(
        self, plan: ErasurePlan, cause: ErasureCause, actor: str, detail: str, now: datetime
    ) -> list[Erasure]:
        """One for every 64 digests, the first under the plan's own id. None where nothing goes."""
        sha256s, uid = digests(plan.payloads), plan.uid(cause)
        media_id = self._media_id(plan) if sha256s else ""
        return [
            Erasure(
                erasure_id=uuid5(uid, str(at)) if at else uid,
                tenant=plan.tenant,
                media_id=media_id,
                sha256s=sha256s[at : at + _MAX_DIGESTS],
                cause=cause,
                actor=actor,
                detail=detail,
                erased_at=now,
            )
            for at in range(0, len(sha256s), _MAX_DIGESTS)
        ]

    def _media_id(self, plan: ErasurePlan) -> str:
        """As a record says it; its digest when a repetition finds all records erased already."""
        if not plan.records:
            return plan.media_id
        for record in plan.records:
            try:
                return decision_from_finding(self._archive.value(record)).admission.media_id
            except (ContentMissing, ContentCorrupt, WireError, UnknownMajorVersion) as error:
                log.warning("media_id_unreadable", record=record.place, cause=str(error)[:256])
        return f"sha256:{plan.media_id_sha256}"
