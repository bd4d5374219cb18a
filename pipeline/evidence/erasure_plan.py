"""What an erasure would do to one media item, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import NAMESPACE_URL, UUID, uuid5

from pipeline.evidence.archive import ArchivedDecision
from pipeline.evidence.payload import Payload
from schemas.erasure import ErasureCause

ERASURE_NAMESPACE = uuid5(NAMESPACE_URL, "https://mediasieve.dev/erasure")


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """What would go, and what stays because another decision of the tenant needs it. All of one media item.

    `sampled`: what was kept of it for the audit sample alone, part of `payloads` and `kept`. `media_id`: where there is
    no record that says it.
    """

    tenant: str
    media_id_sha256: str
    records: tuple[ArchivedDecision, ...]
    payloads: tuple[Payload, ...]
    kept: tuple[Payload, ...]
    obstacle: str | None
    sampled: tuple[Payload, ...] = ()
    media_id: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the records in the archive, sorted."""
        return tuple(record.place for record in self.records)

    def uid(self, cause: ErasureCause) -> UUID:
        """The same for the same records, so that a repetition is recognised as one; without any, for the samples."""
        names = self.places or (self.media_id_sha256, *(p.key for p in self.sampled))
        return uuid5(ERASURE_NAMESPACE, "\x1f".join((self.tenant, cause.value, *names)))


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """What was done. `locked`: keys of objects that stay, unreadable, until their lock is over."""

    erasure_id: UUID
    locked: tuple[str, ...]
