"""What the retention policy makes due, and erasing it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from pipeline.evidence.archive import Archive, ArchivedDecision, LiveEntry
from pipeline.evidence.erasure import Eraser, ErasureRefused
from pipeline.evidence.erasure_plan import ErasurePlan
from pipeline.evidence.retention import RetentionPolicy, due_at
from pipeline.media.errors import ContentCorrupt
from schemas.erasure import ErasureCause


@dataclass(frozen=True, slots=True)
class Applied:
    """One media item that is due. `erasure_id` None: nothing was done, for a dry run or for `obstacle`."""

    plan: ErasurePlan
    due_since: datetime
    obstacle: str | None = None
    erasure_id: UUID | None = None
    locked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Decisions of which a small object of archive or holds is damaged: nothing was done, and `cause` names it."""

    tenant: str
    decision_uids: tuple[UUID, ...]
    cause: str


def apply_retention(
    archive: Archive, policy: RetentionPolicy, eraser: Eraser, now: datetime, actor: str, *, dry_run: bool
) -> Iterator[Applied | Unreadable]:
    """Erase what is due at `now`, in the order of tenant and media digest; lazily, one media item a step.

    A dry run yields the same plans and changes nothing. Safe to run again after a crash at any point; a second run
    at the same time finds nothing to do but what is held. What cannot be read does not stop the others.

    Raises:
        StoreUnavailable, or what the journal raises: the items before it are done.
    """
    gone: set[str] = set()
    items, unreadable = due_items(archive, policy, now, tidy=not dry_run)
    yield from unreadable
    for listed in items:
        uids = tuple(dict.fromkeys(record.decision_uid for record in listed))
        try:
            # The items before may have taken hours: further records may have come, or another run may have been here.
            records = [record for uid in uids for record in _due_records(archive, policy, uid, now)]
            if records:
                yield _apply_one(policy, eraser, records, gone, actor, dry_run=dry_run)
        except ContentCorrupt as error:
            yield Unreadable(listed[0].tenant, uids, str(error))


def due_items(
    archive: Archive, policy: RetentionPolicy, now: datetime, *, tidy: bool = False
) -> tuple[list[list[ArchivedDecision]], list[Unreadable]]:
    """Records whose decisions are due, one list a media item, sorted by tenant and media digest; and what is damaged.

    Reads no record of a decision whose names already say that it is not due. `tidy`: drop names that are no longer
    true, which an erasure leaves that died between its mark and its end.

    Raises:
        ContentCorrupt: a name among the live entries that is none.
        StoreUnavailable: try again later.
    """
    items: defaultdict[tuple[str, str], list[ArchivedDecision]] = defaultdict(list)
    unreadable: list[Unreadable] = []
    for uid, entries in _ripe(archive, policy, now).items():
        try:
            records = archive.unerased(uid)
        except ContentCorrupt as error:
            unreadable.append(Unreadable(entries[0].tenant, (uid,), str(error)))
            continue
        if records and due_at(policy, records) <= now:
            items[records[0].tenant, records[0].media_id_sha256].extend(records)
        left = {record.place for record in records}
        for entry in entries:
            if tidy and entry.place not in left and archive.is_erased(entry.place):
                archive.forget(entry)
    return [items[key] for key in sorted(items)], unreadable


def _due_records(archive: Archive, policy: RetentionPolicy, uid: UUID, now: datetime) -> list[ArchivedDecision]:
    records = archive.unerased(uid)
    return records if records and due_at(policy, records) <= now else []


def _apply_one(
    policy: RetentionPolicy,
    eraser: Eraser,
    records: list[ArchivedDecision],
    gone: set[str],
    actor: str,
    *,
    dry_run: bool,
) -> Applied:
    """Adds what goes, or would go, to `gone`."""
    plan = eraser.plan(records, gone, spare_in_flight=True)
    since = due_at(policy, records)
    if plan.obstacle is not None:
        return Applied(plan, since, obstacle=plan.obstacle)
    if dry_run:
        gone.update(plan.places)
        return Applied(plan, since)
    try:
        done = eraser.carry_out(plan, ErasureCause.RETENTION, actor, f"retention policy {policy.version}")
    except ErasureRefused as refused:
        return Applied(plan, since, obstacle=str(refused))
    gone.update(plan.places)
    return Applied(plan, since, erasure_id=done.erasure_id, locked=done.locked)


def _ripe(archive: Archive, policy: RetentionPolicy, now: datetime) -> dict[UUID, list[LiveEntry]]:
    """Decisions all of whose records are due by their days alone: it may yet be a matter of hours."""
    ripe: defaultdict[UUID, list[LiveEntry]] = defaultdict(list)
    unripe: set[UUID] = set()
    for entry in archive.live():
        start = datetime(entry.day.year, entry.day.month, entry.day.day, tzinfo=UTC)
        if policy.period(entry.tenant, entry.kind).after(start) <= now:
            ripe[entry.decision_uid].append(entry)
        else:
            unripe.add(entry.decision_uid)
    return {uid: entries for uid, entries in ripe.items() if uid not in unripe}
