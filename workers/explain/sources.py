"""Where the records of a decision are found: the archive, the topics, or a file with findings.

All three give the same: the finding's events byte for byte, what people said, what was erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import UUID

from pipeline.evidence.archive import ArchivedDecision
from pipeline.media.errors import StoreUnavailable
from pipeline.streaming.kafka.client import KafkaUnavailable
from schemas.erasure import Erasure
from schemas.review import ReviewVerdict
from schemas.wire import UnknownMajorVersion, WireError, parse_json
from workers.explain.events import Event, Place, read_event
from workers.explain.story import ErasureStory, Held


class FindingUnreadable(Exception):
    """A file given as the finding is none; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record that is known by its pointer alone. `said`: one sentence on why its bytes cannot be read."""

    pointer: ArchivedDecision
    held: Held
    said: str

    @property
    def place(self) -> Place:
        """Where it lay in Kafka."""
        return Place(self.pointer.topic, self.pointer.partition, self.pointer.offset)


@dataclass(frozen=True, slots=True)
class Found:
    """Everything of one decision: `events` in the order of `Event.rank`, `sealed` records; not both are empty.

    `source`: where it was found, for people. `erasures`: of the media item, the first first.
    """

    source: str
    uid: UUID
    tenant: str
    events: tuple[Event, ...]
    sealed: tuple[Sealed, ...] = ()
    reviews: tuple[ReviewVerdict, ...] = ()
    erasures: tuple[ErasureStory, ...] = ()
    other_decisions: tuple[UUID, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def machine(self) -> Event | None:
        """The verdict of the fleet; None when no record of the decision can be read."""
        return self.events[0] if self.events else None


class Source(Protocol):
    """One place to look."""

    def find(self, uid: UUID) -> Found | None:
        """The decision's records; None when this source has none."""

    def uids(self, tenant: str, media_id: str) -> tuple[UUID, ...]:
        """Decisions of one media item, the latest last."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records that were read already: what the topics and a file have in common."""

    source: str
    events: tuple[Event, ...]
    reviews: tuple[ReviewVerdict, ...] = ()
    erasures: tuple[Erasure, ...] = ()
    notes: tuple[str, ...] = ()

    def find(self, uid: UUID) -> Found | None:
        """See Source."""
        events = distinct(event for event in self.events if event.decision.decision_uid == uid)
        if not events:
            return None
        admission = events[0].decision.admission
        others = tuple(u for u in self.uids(admission.tenant, admission.media_id) if u != uid)
        return Found(
            source=self.source,
            uid=uid,
            tenant=admission.tenant,
            events=events,
            reviews=reviews_of(self.reviews, events),
            erasures=erasures_of(self.erasures, admission.tenant, admission.media_id),
            other_decisions=others,
            notes=self.notes,
        )

    def uids(self, tenant: str, media_id: str) -> tuple[UUID, ...]:
        """See Source."""
        decisions = [event.decision for event in self.events]
        mine = [d for d in decisions if (d.admission.tenant, d.admission.media_id) == (tenant, media_id)]
        ordered = sorted(mine, key=lambda d: d.decided_at)
        return tuple(dict.fromkeys(d.decision_uid for d in ordered))


def distinct(events: Iterable[Event]) -> tuple[Event, ...]:
    """In order, each record once: a record that was read twice has the same bytes and the same place."""
    once = {(event.value, event.place): event for event in events}
    return tuple(sorted(once.values(), key=lambda event: event.rank))


def reviews_of(reviews: Iterable[ReviewVerdict], events: Sequence[Event]) -> tuple[ReviewVerdict, ...]:
    """What people said of the decision of these events, told by them or by its own topic, the first first."""
    uids = {event.decision.decision_uid for event in events}
    told = (event.review for event in events if event.review is not None)
    once = {r.review_id: r for r in (*told, *reviews) if r.decision_uid in uids}
    return tuple(sorted(once.values(), key=lambda r: r.reviewed_at))


def erasures_of(erasures: Iterable[Erasure], tenant: str, media_id: str) -> tuple[ErasureStory, ...]:
    """Those of one media item, the first first."""
    mine = (e for e in erasures if (e.tenant, e.media_id) == (tenant, media_id))
    return tuple(
        ErasureStory(cause=e.cause, actor=e.actor, detail=e.detail, erased_at=e.erased_at, sha256s=e.sha256s)
        for e in sorted(mine, key=lambda e: e.erased_at)
    )


def from_file(path: Path) -> Records:
    """Findings from a file: one JSON object, or one a line, as `mediasieve decisions --json` prints them.

    Raises:
        FindingUnreadable: naming the file and the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FindingUnreadable(f"{path}: {error.strerror}; give a file with a finding as JSON") from error
    events = tuple(_events(path, data))
    if not events:
        raise FindingUnreadable(f"{path}: is empty; give a file with a finding as JSON")
    note = "reviews and erasures are not in the file: use the archive or --kafka to see them"
    return Records(f"the file {path.name}", events, notes=(note,))


def find_in(sources: Iterable[Source], uid: UUID) -> Found | None:
    """The first source's word, completed by the later ones; None when no source knows the decision.

    Raises:
        StoreUnavailable, KafkaUnavailable: a source cannot be read now, and no other knows the decision.
    """
    found: Found | None = None
    away: list[StoreUnavailable | KafkaUnavailable] = []
    for source in sources:
        try:
            more = source.find(uid)
        except (StoreUnavailable, KafkaUnavailable) as error:
            away.append(error)
            continue
        found = more if found is None else _merged(found, more)
    if away and found is None:
        raise away[0]
    if found is None:
        return None
    return replace(found, notes=(*found.notes, *map(_away_words, away)))


def latest_in(sources: Iterable[Source], tenant: str, media_id: str) -> UUID | None:
    """The latest decision on a media item, of the first source that knows one. Raises as `find_in`."""
    away: list[StoreUnavailable | KafkaUnavailable] = []
    for source in sources:
        try:
            if uids := source.uids(tenant, media_id):
                return uids[-1]
        except (StoreUnavailable, KafkaUnavailable) as error:
            away.append(error)
    if away:
        raise away[0]
    return None


def _away_words(error: StoreUnavailable | KafkaUnavailable) -> str:
    what = "the archive" if isinstance(error, StoreUnavailable) else "Kafka"
    return f"{what} cannot be read now: {error}"


def _merged(found: Found, more: Found | None) -> Found:
    if more is None:
        return found
    return replace(
        found,
        source=f"{found.source} and {more.source}",
        events=_without_copies((*found.events, *more.events)),
        sealed=(*found.sealed, *more.sealed),
        reviews=reviews_of((*found.reviews, *more.reviews), (*found.events, *more.events)),
        erasures=_all_erasures(found, more),
        other_decisions=tuple(dict.fromkeys((*found.other_decisions, *more.other_decisions))),
        notes=(*found.notes, *(n for n in more.notes if n not in found.notes)),
    )


def _all_erasures(found: Found, more: Found) -> tuple[ErasureStory, ...]:
    """Each once; the same erasure is told by the archive and by its topic."""
    once = {(e.erased_at, e.actor, e.detail): e for e in (*found.erasures, *more.erasures)}
    return tuple(sorted(once.values(), key=lambda e: e.erased_at))


def _without_copies(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """A copy without a place is dropped when the same bytes are known with one."""
    placed = {event.value for event in events if event.place is not None}
    return distinct(event for event in events if event.place is not None or event.value not in placed)


def _events(path: Path, data: bytes) -> Iterator[Event]:
    try:
        parse_json(data)
        lines = [(1, data.strip())]
    except WireError:
        lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    for number, line in lines:
        try:
            yield read_event(line)
        except (WireError, UnknownMajorVersion) as error:
            raise FindingUnreadable(f"{path}, line {number}: {error}; expected a finding of mediasieve") from error
