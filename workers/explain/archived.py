"""The records of a decision as the archive kept them, years after Kafka let them go."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from pipeline.evidence.archive import Archive, ArchivedDecision, kept_as, media_digest
from pipeline.media.errors import ContentCorrupt, ContentErased, ContentMissing, StoreUnavailable
from schemas.topics import Topic
from schemas.wire import UnknownMajorVersion, WireError
from workers.explain.events import Event, Place, read_event
from workers.explain.sources import Found, Sealed, distinct, reviews_of
from workers.explain.story import ErasureStory, Held
from workers.explain.times import moment

_NOTE = "the archive holds findings only: reviews on their own topic are seen with --kafka, while Kafka keeps them"


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """See Source. `where`: the store's URL, for people."""

    archive: Archive
    where: str

    def find(self, uid: UUID) -> Found | None:
        """See Source. Raises StoreUnavailable and ContentCorrupt (a pointer that is none)."""
        pointers = self.archive.get(uid)
        if not pointers:
            return None
        read = [self._read(pointer) for pointer in pointers]
        events = distinct(r for r in read if isinstance(r, Event))
        tenant = pointers[0].tenant
        others: tuple[UUID, ...] = ()
        if events:
            others = tuple(u for u in self.uids(tenant, events[0].decision.admission.media_id) if u != uid)
        return Found(
            source=f"the archive in {self.where}",
            uid=uid,
            tenant=tenant,
            events=events,
            sealed=tuple(r for r in read if isinstance(r, Sealed)),
            reviews=reviews_of((), events),
            erasures=tuple(e for pointer in pointers if (e := self._erasure(pointer))),
            other_decisions=others,
            notes=(_NOTE,),
        )

    def uids(self, tenant: str, media_id: str) -> tuple[UUID, ...]:
        """See Source. Raises StoreUnavailable."""
        found = self.archive.find(tenant, media_id)
        return tuple(sorted(found, key=lambda uid: max(p.decided_at for p in self.archive.get(uid))))

    def _read(self, pointer: ArchivedDecision) -> Event | Sealed:
        place = Place(pointer.topic, pointer.partition, pointer.offset)
        try:
            return _matched(pointer, read_event(self.archive.value(pointer), place))
        except ContentMissing as error:
            return self._absent(pointer, error)
        except ContentCorrupt as error:
            return Sealed(pointer, Held.DIGEST_DIFFERS, f"The archived record is not the one that was kept: {error}.")
        except StoreUnavailable as error:
            return Sealed(pointer, Held.UNREADABLE, f"The archived record cannot be read now: {error}.")
        except (WireError, UnknownMajorVersion) as error:
            return Sealed(pointer, Held.UNREADABLE, f"The archived record is none that this release reads: {error}.")

    def _absent(self, pointer: ArchivedDecision, error: ContentMissing) -> Sealed:
        """An erasure that no lock stood against leaves no object: the archive's mark says that it was one."""
        if isinstance(error, ContentErased) or self.archive.erased(pointer) is not None:
            return Sealed(pointer, Held.ERASED, self._erased_words(pointer))
        return Sealed(pointer, Held.MISSING, f"The archived record is missing: {error}.")

    def _erased_words(self, pointer: ArchivedDecision) -> str:
        erased = self.archive.erased(pointer)
        if erased is None:
            return "The record's key was destroyed; the archive has no note of who did it."
        return f"Erased on {moment(erased.erased_at)} by {erased.cause.value} ({erased.actor}): {erased.detail}"

    def _erasure(self, pointer: ArchivedDecision) -> ErasureStory | None:
        erased = self.archive.erased(pointer)
        if erased is None:
            return None
        return ErasureStory(
            cause=erased.cause,
            actor=erased.actor,
            detail=erased.detail,
            erased_at=erased.erased_at,
            sha256s=tuple(sorted({p.sha256 for p in (*pointer.payloads, pointer.record)})),
        )


def _matched(pointer: ArchivedDecision, event: Event) -> Event | Sealed:
    if _told(event, pointer.topic) == _pointed(pointer):
        return event
    said = "The archived record is another one than the archive's pointer tells of: one of them was exchanged."
    return Sealed(pointer, Held.DIGEST_DIFFERS, said)


def _told(event: Event, topic: Topic) -> tuple[object, ...]:
    decision = event.decision
    media = media_digest(decision.admission.media_id)
    uid, (outcome, risk) = decision.decision_uid, kept_as(decision, topic)
    return uid, decision.sequence, decision.admission.tenant, media, outcome, risk, decision.decided_at


def _pointed(pointer: ArchivedDecision) -> tuple[object, ...]:
    media, uid, outcome = pointer.media_id_sha256, pointer.decision_uid, pointer.outcome
    return uid, pointer.sequence, pointer.tenant, media, outcome, pointer.risk, pointer.decided_at
