"""What the retention policy makes due, and erasing it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from pipeline.evidence.archive import Archive, ArchivedDecision, LiveEntry
from pipeline.evidence.erasure import Eraser, ErasurePlan, ErasureRefused
from pipeline.evidence.retention import RetentionPolicy, due_at
from schemas.erasure import ErasureCause


@dataclass(frozen=True, slots=True)
class Applied:
    """One media item that is due. `erasure_id` None: nothing was done, for a dry run or for `obstacle`."""

    plan: ErasurePlan
    due_since: datetime
    obstacle: str | None = None
    erasure_id: UUID | None = None
    locked: tuple[str, ...] = ()


def apply_retention(
    archive: Archive, policy: RetentionPolicy, eraser: Eraser, now: datetime, actor: str, *, dry_run: bool
) -> Iterator[Applied]:
    """Erase what is due at `now`, in the order of tenant and media digest; lazily, one media item a step.

    A dry run yields the same plans and changes nothing. Safe to run again after a crash at any point; a second run
    at the same time finds nothing to do but what is held.

    Raises:
        ContentCorrupt, StoreUnavailable, or what the journal raises: the items before it are done.
    """
    gone: set[str] = set()
    for records in due_items(archive, policy, now, tidy=not dry_run):
        plan = eraser.plan(records, gone, spare_in_flight=True)
        since = due_at(policy, records)
        if plan.obstacle is not None:
            yield Applied(plan, since, obstacle=plan.obstacle)
            continue
        gone.update(plan.places)
        if dry_run:
            yield Applied(plan, since)
            continue
        try:
            done = eraser.carry_out(plan, ErasureCause.RETENTION, actor, f"retention policy {policy.version}")
        except ErasureRefused as refused:
            gone.difference_update(plan.places)
            yield Applied(plan, since, obstacle=str(refused))
        else:
            yield Applied(plan, since, erasure_id=done.erasure_id, locked=done.locked)


def due_items(
    archive: Archive, policy: RetentionPolicy, now: datetime, *, tidy: bool = False
) -> list[list[ArchivedDecision]]:
    """Records whose decisions are due, one list a media item, sorted by tenant, media digest and place.

    Reads no record of a decision whose names already say that it is not due. `tidy`: drop names that are no longer
    true, which an erasure leaves that died between its mark and its end.

    Raises:
        ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
    """
    items: defaultdict[tuple[str, str], list[ArchivedDecision]] = defaultdict(list)
    for uid, entries in _ripe(archive, policy, now).items():
        records = archive.unerased(uid)
        if records and due_at(policy, records) <= now:
            items[records[0].tenant, records[0].media_id_sha256].extend(records)
        left = {record.place for record in records}
        for entry in entries:
            if tidy and entry.place not in left and archive.is_erased(entry.place):
                archive.forget(entry)
    return [sorted(items[key], key=lambda r: r.place) for key in sorted(items)]


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
