"""The archive: every decision as it stood in Kafka, found by its uid and by its media id, years later.

What lies where, below the store's URL; `{place}` is `{decision uid}/{sequence:06d}-{topic}-{partition}-{offset}`:

    evidence/{tenant}/{sha256}.json                   the record's exact bytes, sealed, so that they can be erased
    archive/by-decision/{place}.json                  `ArchivedDecision`: digests, position and times only
    archive/by-media/{tenant}/{sha256(media id)}/{decision uid}      empty
    archive/by-payload/{tenant}/{sha256}/{place}      empty: who needs this payload
    archive/live/{tenant}/{kind}/{date}/{place}       empty: not erased yet, with what its period depends on
    archive/erased/{place}.json                       `Erased`, once its keys are destroyed

The position belongs to the name because a reference that was delivered twice is decided twice under one uid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import Field

from pipeline.evidence.payload import Payload, digests, payloads_of
from pipeline.evidence.small_objects import keep_object, parse_object
from pipeline.media.errors import ContentCorrupt, ContentMissing
from pipeline.media.objects import Objects
from schemas.base import Part
from schemas.decision import Decision, Outcome, Risk
from schemas.erasure import ErasureCause
from schemas.ocsf import reviewed_at
from schemas.topics import DECISION_TOPICS, Topic
from schemas.types import Identifier, Sha256, Text, Timestamp, Uri

BY_DECISION = "archive/by-decision/"
BY_MEDIA = "archive/by-media/"
BY_PAYLOAD = "archive/by-payload/"
LIVE = "archive/live/"
ERASED = "archive/erased/"


class EvidenceStore(Protocol):
    """What the archive needs of `ContentStore`."""

    def put_evidence(self, tenant: str, data: bytes, suffix: str) -> tuple[str, str]:
        """Keep sealed; URI and digest."""

    def get_evidence(self, uri: str, sha256: str) -> bytes:
        """Read back, verified."""


class ArchivedDecision(Part):
    """Where one decision record lay in Kafka and what it was decided on; digests only, nothing to erase.

    `payloads` are the sealed objects of its tenant that it names, without the record itself. `reviewed_at`: of people's
    events, when people said it.
    """

    v: Literal[1] = 1
    decision_uid: UUID
    sequence: Annotated[int, Field(ge=0)]
    tenant: Identifier
    media_id_sha256: Sha256
    outcome: Outcome
    risk: Risk | None
    topic: Topic
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    decided_at: Timestamp
    reviewed_at: Timestamp | None = None
    record_uri: Uri
    record_sha256: Sha256
    payloads: tuple[Payload, ...]

    @property
    def place(self) -> str:
        """Its name in the archive."""
        return _name(self.decision_uid, self.sequence, self.topic, self.partition, self.offset)

    @property
    def kind(self) -> str:
        """What its period depends on, beside the tenant: the risk of a pass, else the outcome."""
        return self.risk.value if self.risk is not None else self.outcome.value

    @property
    def counts_from(self) -> datetime:
        """When its period begins: with the decision, and people's with their own word."""
        return self.decided_at if self.reviewed_at is None else max(self.decided_at, self.reviewed_at)

    @property
    def live(self) -> LiveEntry:
        """Its entry among what is not erased."""
        return LiveEntry(self.tenant, self.kind, self.counts_from.date(), self.place)

    @property
    def record(self) -> Payload:
        """The record's own sealed bytes."""
        found = Payload.of_uri(self.record_uri)
        if found is None:
            raise ContentCorrupt(f"{BY_DECISION}{self.place}.json: record_uri {self.record_uri!r} names no payload")
        return found


@dataclass(frozen=True, slots=True)
class LiveEntry:
    """A record that is not erased, as its object's name alone says it; `day` is that of `counts_from` in UTC."""

    tenant: str
    kind: str
    day: date
    place: str

    @property
    def decision_uid(self) -> UUID:
        """First part of the place."""
        return UUID(self.place.partition("/")[0])

    @property
    def key(self) -> str:
        """The object's name."""
        return f"{LIVE}{self.tenant}/{self.kind}/{self.day.isoformat()}/{self.place}"

    @staticmethod
    def of_key(key: str) -> LiveEntry:
        """Raises ContentCorrupt."""
        try:
            tenant, kind, day, place = key.removeprefix(LIVE).split("/", 3)
            return LiveEntry(tenant, kind, date.fromisoformat(day), place)
        except ValueError as error:
            raise ContentCorrupt(f"{key}: expected {LIVE}tenant/kind/date/place") from error


class Erased(Part):
    """That a record's keys were destroyed, and why; beside the pointer, which stays."""

    erasure_id: UUID
    cause: ErasureCause
    actor: Identifier
    detail: Text
    erased_at: Timestamp


def kept_as(decision: Decision, topic: Topic) -> tuple[Outcome, Risk | None]:
    """What a record's period depends on: the outcome of the topic that it lies on, and the risk of a pass.

    The events of people hold the machine's decision and lie on the topic of the outcome that people chose; a pass by
    people is `cleared`.

    Raises:
        ValueError: no decision topic.
    """
    outcome = next((outcome for outcome, its in DECISION_TOPICS.items() if its is topic), None)
    if outcome is None:
        raise ValueError(f"{topic}: expected one of {', '.join(DECISION_TOPICS.values())}")
    if outcome is decision.outcome:
        return outcome, decision.risk
    return outcome, Risk.CLEARED if outcome is Outcome.PASS else None


class Archive:
    """Put-if-absent: archiving a record again, also after a crash in the middle, changes nothing."""

    def __init__(self, store: EvidenceStore, objects: Objects) -> None:
        """`store` seals the records' bytes, `objects` holds the pointers; usually one store under two views."""
        self._store = store
        self._objects = objects

    def put(self, decision: Decision, value: bytes, topic: Topic, partition: int, offset: int) -> ArchivedDecision:
        """Keep a decision record as it was read from Kafka.

        What `get` finds is whole, and what `find` finds, `get` does.

        Args:
            decision: what `value` says.
            value: the record's bytes as read.
            topic: the logical topic it was read from.
            partition: of that topic.
            offset: in that partition.

        Raises:
            ValueError: a `released` pass, which is not archived.
            StoreUnavailable: not archived; try again later.
        """
        outcome, risk = kept_as(decision, topic)
        if risk is Risk.RELEASED:
            raise ValueError(f"decision {decision.decision_uid}: a released pass is not archived")
        tenant, media = decision.admission.tenant, media_digest(decision.admission.media_id)
        place = _name(decision.decision_uid, decision.sequence, topic, partition, offset)
        if self.is_erased(place):
            # Read again after its erasure: sealing it anew would bring it back.
            return self.at(place)
        uri, sha256 = self._store.put_evidence(tenant, value, ".json")
        found = ArchivedDecision(
            decision_uid=decision.decision_uid,
            sequence=decision.sequence,
            tenant=tenant,
            media_id_sha256=media,
            outcome=outcome,
            risk=risk,
            topic=topic,
            partition=partition,
            offset=offset,
            decided_at=decision.decided_at,
            reviewed_at=reviewed_at(value),
            record_uri=uri,
            record_sha256=sha256,
            payloads=payloads_of(decision),
        )
        self._objects.sync(found.record.key)
        for needed in digests((*found.payloads, found.record)):
            self._mark(f"{BY_PAYLOAD}{tenant}/{needed}/{found.place}")
        self._mark(found.live.key)
        keep_object(self._objects, f"{BY_DECISION}{found.place}.json", found)
        self._mark(f"{BY_MEDIA}{tenant}/{media}/{found.decision_uid}")
        return found

    def get(self, decision_uid: UUID) -> list[ArchivedDecision]:
        """All records of a decision, by sequence, then by position; empty when none is archived.

        Raises:
            ContentCorrupt: a pointer that is none.
            StoreUnavailable: try again later.
        """
        keys = sorted(found.key for found in self._objects.list(f"{BY_DECISION}{decision_uid}/"))
        return [self._pointer(key) for key in keys]

    def at(self, place: str) -> ArchivedDecision:
        """One record by its name. Raises ContentMissing, ContentCorrupt and StoreUnavailable."""
        return self._pointer(f"{BY_DECISION}{place}.json")

    def find(self, tenant: str, media_id: str) -> list[UUID]:
        """The uids of all decisions on a media id, sorted. Raises StoreUnavailable."""
        prefix = f"{BY_MEDIA}{tenant}/{media_digest(media_id)}/"
        return sorted(UUID(found.key.removeprefix(prefix)) for found in self._objects.list(prefix))

    def value(self, archived: ArchivedDecision) -> bytes:
        """The record's bytes, verified.

        Raises:
            ContentErased, ContentMissing, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
        """
        return self._store.get_evidence(archived.record_uri, archived.record_sha256)

    def erased(self, archived: ArchivedDecision) -> Erased | None:
        """Who erased it and why; None while it is readable."""
        key = f"{ERASED}{archived.place}.json"
        try:
            return parse_object(Erased, self._objects.read(key), key)
        except ContentMissing:
            return None

    def mark_erased(self, archived: ArchivedDecision, erased: Erased) -> None:
        """Note that it needs no payload any more, then that all its keys are destroyed; the first note stays.

        Raises:
            StoreUnavailable: perhaps not noted; do it again.
        """
        for sha256 in digests((*archived.payloads, archived.record)):
            self._objects.delete(f"{BY_PAYLOAD}{archived.tenant}/{sha256}/{archived.place}")
        keep_object(self._objects, f"{ERASED}{archived.place}.json", erased)
        self.forget(archived.live)

    def unerased(self, decision_uid: UUID) -> list[ArchivedDecision]:
        """`get` without the erased records. Raises as `get`."""
        return [found for found in self.get(decision_uid) if not self.is_erased(found.place)]

    def live(self, tenant: str | None = None) -> Iterator[LiveEntry]:
        """Every record that is not erased, of all tenants or one, in no order; reads names alone.

        One whose erasure died at its very end may still be among them: `is_erased` says.

        Raises:
            ContentCorrupt, StoreUnavailable: as `get`.
        """
        for found in self._objects.list(LIVE if tenant is None else f"{LIVE}{tenant}/"):
            yield LiveEntry.of_key(found.key)

    def forget(self, entry: LiveEntry) -> None:
        """Drop an entry that is no longer true. Raises StoreUnavailable."""
        self._objects.delete(entry.key)

    def needed_by(self, tenant: str, sha256: str) -> set[str]:
        """Places of the records, of erased ones perhaps too, that name these bytes. Raises StoreUnavailable."""
        prefix = f"{BY_PAYLOAD}{tenant}/{sha256}/"
        return {found.key.removeprefix(prefix) for found in self._objects.list(prefix)}

    def needs(self, tenant: str, sha256: str, gone: Collection[str] = ()) -> bool:
        """Whether a record that is not erased, and whose place is not in `gone`, names these bytes.

        Raises:
            StoreUnavailable: try again later.
        """
        return any(not self.is_erased(place) for place in sorted(self.needed_by(tenant, sha256).difference(gone)))

    def is_erased(self, place: str) -> bool:
        """Whether the record at `place` was erased. Raises StoreUnavailable."""
        try:
            _, size = self._objects.read_start(f"{ERASED}{place}.json", 0)
        except ContentMissing:
            return False
        return size > 0  # a power cut may have left an empty one: then the erasure is done again

    def _mark(self, key: str) -> None:
        self._objects.create(key, b"")
        self._objects.sync(key)

    def _pointer(self, key: str) -> ArchivedDecision:
        found = parse_object(ArchivedDecision, self._objects.read(key), key)
        if key != f"{BY_DECISION}{found.place}.json":
            raise ContentCorrupt(f"{key}: holds the pointer to {found.place}, not its own; restore the object")
        return found


def media_digest(media_id: str) -> str:
    """What a media id is found by: SHA-256 of its UTF-8, lower-case hex."""
    return hashlib.sha256(media_id.encode()).hexdigest()


def _name(decision_uid: UUID, sequence: int, topic: Topic, partition: int, offset: int) -> str:
    return f"{decision_uid}/{sequence:06d}-{topic.value}-{partition:05d}-{offset:020d}"
