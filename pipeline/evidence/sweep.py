"""Removing what no decision names: objects that attempts left behind which were never committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from pipeline.evidence.archive import Archive
from pipeline.evidence.erasure import Vault
from pipeline.evidence.in_flight import longest_flight
from pipeline.evidence.legal_hold import LegalHolds
from pipeline.evidence.payload import Payload
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


def sweep(
    archive: Archive, vault: Vault, holds: LegalHolds, older_than: timedelta, now: datetime, *, dry_run: bool
) -> Iterator[Swept]:
    """Remove unnamed objects of at least that age, by tenant and digest; lazily, one payload a step.

    All objects of one digest go together, for they share a key, and only when all of them are old.

    Raises:
        SweepRefused: `older_than` is below `longest_flight`.
        StoreUnavailable: what was yielded before is done; do it again.
    """
    least = longest_flight()
    if older_than < least:
        raise SweepRefused(
            f"--older-than {older_than.days}d: what names an object may be on its way for {least.days} days, the "
            f"retention of media.suspect, media.anomalous and decisions.* together; give {least.days}d or more"
        )
    for (tenant, sha256), found in sorted(_by_payload(vault).items()):
        if any(now - each.modified < older_than for each in found) or _needed(archive, tenant, sha256):
            continue
        for each in sorted(found, key=lambda s: s.key):
            yield _remove(vault, holds, each, now, dry_run=dry_run)


def _by_payload(vault: Vault) -> dict[tuple[str, str], list[StoredObject]]:
    found: defaultdict[tuple[str, str], list[StoredObject]] = defaultdict(list)
    for prefix in _PREFIXES:
        for each in vault.objects.list(prefix):
            payload = Payload.of_key(each.key)
            if payload is None:
                log.warning("object_of_no_tenant", key=each.key, then="left where it is")
                continue
            found[payload.tenant, payload.sha256].append(each)
    return found


def _needed(archive: Archive, tenant: str, sha256: str) -> bool:
    return any(not archive.is_erased(place) for place in sorted(archive.needed_by(tenant, sha256)))


def _remove(vault: Vault, holds: LegalHolds, found: StoredObject, now: datetime, *, dry_run: bool) -> Swept:
    payload = Payload.of_key(found.key)
    assert payload is not None  # noqa: S101 - _by_payload saw to it
    held = holds.holding_all(payload.tenant)
    obstacle = f"legal hold {held[0].hold_id} on all of {payload.tenant}" if held else vault.obstacle(payload, now)
    if obstacle is None and not dry_run:
        vault.destroy(payload, now)
        log.info("swept", key=found.key, size=found.size, modified=found.modified.isoformat())
    return Swept(found.key, found.size, found.modified, obstacle)
