"""Removing what no decision names: objects that attempts left behind which were never committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

import structlog

from pipeline.evidence.archive import Archive
from pipeline.evidence.erasure import Vault
from pipeline.evidence.in_flight import longest_flight
from pipeline.evidence.legal_hold import LegalHolds
from pipeline.evidence.payload import Payload
from pipeline.evidence.sampled import SampledPayloads
from pipeline.media.content_store import FRESH_FOR
from pipeline.media.objects import StoredObject

log = structlog.get_logger(__name__)

_PREFIXES = ("content", "evidence")


class SweepRefused(Exception):
    """The age is too young to be safe; the text says which would do."""


@dataclass(frozen=True, slots=True)
class Swept:
    """One object that no archived decision names. `obstacle`: why it stays, None when it goes."""

    key: str
    size: int
    modified: datetime
    obstacle: str | None = None


def least_age() -> timedelta:
    """Whole days after which nothing on its way can need an object that was not put again."""
    day = timedelta(days=1)
    return -(-(longest_flight() + FRESH_FOR) // day) * day


def sweep(
    archive: Archive, vault: Vault, holds: LegalHolds, older_than: timedelta, now: datetime, *, dry_run: bool
) -> Iterator[Swept]:
    """Remove unnamed objects of at least that age, by tenant and digest; lazily, but for the listing.

    All objects of one digest go together, for they share a key, and only when all of them are old. What was kept for
    the audit sample is swept like the rest, with the notes of it, unless its media id is held.

    Raises:
        SweepRefused: `older_than` is below `least_age`.
        ContentCorrupt: a note that is none.
        StoreUnavailable: what was yielded before is done; do it again.
    """
    least = least_age()
    if older_than < least:
        raise SweepRefused(
            f"--older-than {older_than.days}d: what names an object may be on its way for {longest_flight().days} days,"
            " the retention of media.suspect, media.anomalous and decisions.* together, and a put within "
            f"{FRESH_FOR} of another does not make it younger; give {least.days}d or more"
        )
    sampled = SampledPayloads(vault.objects)
    for tenant, objects in groupby(sorted(_by_payload(vault).items()), key=lambda item: item[0][0]):
        owners = sampled.media_of(tenant)
        for (_, sha256), found in objects:
            if any(now - each.modified < older_than for each in found) or archive.needs(tenant, sha256):
                continue
            media = set[str]().union(*(owners.get(each.key, ()) for each in found))
            found.sort(key=lambda s: s.key)
            yield from _remove(vault, found, _held(holds, tenant, media), older_than, now, dry_run=dry_run)
    if not dry_run:
        sampled.forget_gone(older_than, now)


def _by_payload(vault: Vault) -> dict[tuple[str, str], list[StoredObject]]:
    """The whole listing, in memory: stores list in no common order, and all objects of a digest must be seen."""
    found: defaultdict[tuple[str, str], list[StoredObject]] = defaultdict(list)
    for prefix in _PREFIXES:
        for each in vault.objects.list(prefix):
            payload = Payload.of_key(each.key)
            if payload is None:
                log.warning("object_of_no_tenant", key=each.key, then="left where it is")
                continue
            found[payload.tenant, payload.sha256].append(each)
    return found


def _remove(
    vault: Vault,
    found: list[StoredObject],
    held: str | None,
    older_than: timedelta,
    now: datetime,
    *,
    dry_run: bool,
) -> Iterator[Swept]:
    """All or none: the objects of one digest share their key."""
    payloads = [p for each in found if (p := Payload.of_key(each.key)) is not None]
    obstacle = held or _obstacle(vault, payloads, now)
    # The listing may be hours old: what was put again since is needed again.
    if any((at := vault.put_at(p)) is not None and now - at < older_than for p in payloads):
        return
    for each, payload in zip(found, payloads, strict=True):
        if obstacle is None and not dry_run:
            vault.destroy(payload, now)
            log.info("swept", key=each.key, size=each.size, modified=each.modified.isoformat())
        yield Swept(each.key, each.size, each.modified, obstacle)


def _held(holds: LegalHolds, tenant: str, media: set[str]) -> str | None:
    """`media`: digests of the media ids that are known to need what is to go."""
    if held := holds.holding_all(tenant):
        return f"legal hold {held[0].hold_id} on all of {tenant}"
    for each in sorted(media):
        if held := holds.holding(tenant, each):
            return f"legal hold {held[0].hold_id} on a media item of {tenant}"
    return None


def _obstacle(vault: Vault, payloads: list[Payload], now: datetime) -> str | None:
    for payload in payloads:
        if (obstacle := vault.obstacle(payload, now)) is not None:
            return obstacle
        if (until := vault.locked_until(payload, now)) is not None:
            return f"{payload.key} is locked until {until}"
    return None
