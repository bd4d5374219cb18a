"""What the gateway's database knows of media items and their decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, select

from schemas.api import DecisionEvent, MediaState, MediaStatus, RejectionEvent
from schemas.media import EvidenceRef
from workers.gateway.events import current
from workers.gateway.tables import EVENTS, LAST_SEQ, PURGED_SEQ, SUBMISSIONS, counter
from workers.web.database import reading


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event and its place in the order of all events of all tenants."""

    seq: int
    kind: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Events of one tenant, in order; `upto`: of those up to this number none is missing."""

    events: Sequence[Numbered]
    upto: int


class Views:
    """Reads only. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        """The tables are there already."""
        self._engine = engine

    def status(self, tenant: str, media_id: str) -> MediaStatus | None:
        """All that is known; None when nothing is."""
        submission = select(SUBMISSIONS).where(SUBMISSIONS.c.tenant == tenant, SUBMISSIONS.c.media_id == media_id)
        events = select(EVENTS.c.kind, EVENTS.c.body).where(_of(tenant, media_id)).order_by(EVENTS.c.seq)
        with reading(self._engine) as connection:
            row = connection.execute(submission).mappings().one_or_none()
            found = connection.execute(events).all()
        if row is None and not found:
            return None
        decisions = tuple(
            DecisionEvent.model_validate(body, extra="ignore") for kind, body in found if kind == "decision"
        )
        rejections = [
            RejectionEvent.model_validate(body, extra="ignore") for kind, body in found if kind == "rejection"
        ]
        if decisions:
            state = MediaState.DECIDED
        elif rejections:
            state = MediaState.REJECTED
        else:
            state = MediaState.ACCEPTED if row is not None and row["accepted_at"] is not None else MediaState.PENDING
        return MediaStatus(
            media_id=media_id,
            tenant=tenant,
            state=state,
            submitted_at=datetime.fromtimestamp(row["submitted_at"], UTC) if row is not None else None,
            decision=current(decisions),
            rejection=rejections[-1] if rejections and not decisions else None,
            events=decisions,
        )

    def evidence(self, tenant: str, media_id: str, sha256: str) -> EvidenceRef | None:
        """The blob that some decision on the item names."""
        named = select(EVENTS.c.evidence).where(_of(tenant, media_id))
        with reading(self._engine) as connection:
            refs = [ref for (found,) in connection.execute(named) for ref in found]
        return next((EvidenceRef.model_validate(ref, extra="ignore") for ref in refs if ref["sha256"] == sha256), None)

    def after(self, tenant: str, seq: int, limit: int) -> Page:
        """The tenant's next events."""
        following = (
            select(EVENTS.c.seq, EVENTS.c.kind, EVENTS.c.body)
            .where(EVENTS.c.tenant == tenant, EVENTS.c.seq > seq)
            .order_by(EVENTS.c.seq)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            last = counter(connection, LAST_SEQ)
            found = [Numbered(*row) for row in connection.execute(following)]
        return Page(found, found[-1].seq if len(found) == limit else last)

    def bounds(self) -> tuple[int, int]:
        """Number of the last event that was purged, and of the last event."""
        with reading(self._engine) as connection:
            return counter(connection, PURGED_SEQ), counter(connection, LAST_SEQ)


def _of(tenant: str, media_id: str) -> ColumnElement[bool]:
    return and_(EVENTS.c.tenant == tenant, EVENTS.c.media_id == media_id)
