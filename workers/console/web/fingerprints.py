"""Perceptual hashes of cases that wait for people, made by a thread of the console's own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import Engine, Row, and_, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from pipeline.evaluation.perceptual_hash import BITS, dhash256, is_informative
from schemas.decision import Decision
from schemas.wire import UnknownMajorVersion, WireError, decode
from workers.console.domain.models import CaseState
from workers.console.domain.tables import cases
from workers.console.web.images import Images, NoPicture
from workers.console.web.tables import FINGERPRINTS
from workers.explain.evidence import EvidenceReader
from workers.explain.story import Held
from workers.web.database import reading

log = structlog.get_logger("mediasieve")

_EVERY_S = 5.0
_BACKOFF_S = 30.0
_BATCH = 16
_PAST = 10_000


class StoreAway(Exception):
    """A picture may be there and could not be read now."""


class Fingerprinter:
    """`start` and `stop` its thread; several consoles may do the same work on one database."""

    def __init__(self, engine: Engine, reader: EvidenceReader, images: Images) -> None:
        """`images` is open when the thread starts."""
        self._engine = engine
        self._reader = reader
        self._images = images
        self._past_done = False
        self._postponed: set[tuple[str, str]] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin with what waits."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="fingerprints", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """After the picture at hand."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def turn(self) -> tuple[int, int]:
        """One batch: open cases first, as they are claimed; then, once, those closed before.

        Returns how many pictures were looked at, and of how many something is known now. What the store could not be
        asked for is left for later, and does not stand in the way of others.
        """
        found = self._missing(CaseState.OPEN)
        if not found and not self._past_done:
            found = self._missing(CaseState.CLOSED)
            self._past_done = not found and not self._postponed
        return len(found), sum(self._noted(row) for row in found if not self._stop.is_set())

    def _missing(self, state: CaseState) -> Sequence[Row[Any]]:
        """Cases whose content has no entry. Of closed ones the newest `_PAST` are looked at: no others are compared."""
        order = cases.c.rank if state is CaseState.OPEN else cases.c.closed_at.desc()
        looked_at = (
            select(cases.c.case_id, cases.c.rank, cases.c.tenant, cases.c.content_sha256)
            .where(cases.c.state == state.value, cases.c.gold_of.is_(None), cases.c.content_sha256.is_not(None))
            .order_by(order)
            .limit(_PAST)
            .subquery()
        )
        known = and_(
            FINGERPRINTS.c.tenant == looked_at.c.tenant, FINGERPRINTS.c.content_sha256 == looked_at.c.content_sha256
        )
        missing = (
            select(cases.c.tenant, cases.c.content_sha256, cases.c.decision)
            .join(looked_at, looked_at.c.case_id == cases.c.case_id)
            .outerjoin(FINGERPRINTS, known)
            .where(FINGERPRINTS.c.tenant.is_(None))
            .order_by(looked_at.c.rank)
            .limit(_BATCH + len(self._postponed))
        )
        with reading(self._engine) as connection:
            rows: Sequence[Any] = connection.execute(missing).all()
        return list({_key(row): row for row in rows if _key(row) not in self._postponed}.values())[:_BATCH]

    def _noted(self, row: Row[Any]) -> bool:
        try:
            dhash = self._dhash(row)
        except StoreAway as error:
            log.warning("fingerprint_waits", sha256=row.content_sha256, detail=str(error)[:500])
            self._postponed.add(_key(row))
            return False
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    insert(FINGERPRINTS).values(tenant=row.tenant, content_sha256=row.content_sha256, dhash=dhash)
                )
        except IntegrityError:  # another case of the same bytes, or another console, was faster
            log.debug("fingerprint_known", sha256=row.content_sha256)
        return True

    def _dhash(self, row: Row[Any]) -> bytes | None:
        """None: there is no picture, or its hash would say nothing."""
        try:
            piece = self._reader.original(decode(Decision, row.decision))
        except (WireError, UnknownMajorVersion):  # stored by a newer release
            return None
        if piece.data is None:
            if piece.story.held is Held.UNREADABLE:
                raise StoreAway(piece.story.said)
            return None
        try:
            found = dhash256(self._images.pixels(piece.data))
        except NoPicture:
            return None
        return found.to_bytes(BITS // 8, "big") if is_informative(found) else None

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._pause_s())

    def _pause_s(self) -> float:
        """One turn, and how long to wait after it."""
        try:
            looked_at, known = self.turn()
        except OperationalError as error:
            log.warning("fingerprints_wait", detail=str(error.orig))
            return _BACKOFF_S
        if known:
            return 0.0
        if not looked_at and not self._postponed:
            return _EVERY_S
        if not looked_at:
            self._postponed.clear()
        return _BACKOFF_S


def _key(row: Row[Any]) -> tuple[str, str]:
    return row.tenant, row.content_sha256
