"""Past cases whose picture looks alike: by the Hamming distance of perceptual hashes.

The hash is `dhash256`, kept per tenant and content by `Fingerprinter`. Pictures are compared with those of tenants whom
the asker may see, and with no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, select

from pipeline.evaluation.perceptual_hash import BITS, NEAR_DUPLICATE_BITS
from workers.console.domain.errors import NoSuchCase
from workers.console.domain.models import CaseRow, CaseState, CaseView, Tenants
from workers.console.domain.tables import cases
from workers.console.domain.turn import visible
from workers.console.web.tables import FINGERPRINTS
from workers.web.database import reading

RADIUS_BITS = 48
"""Of 256: different photographs differ in fewer about once in 100,000 pairs; see docs/console.md for the figures."""

_SHOWN = 6
_COMPARED = 10_000
"""The newest closed cases that are looked through: a page costs the same however many there are."""

_CLOSED = (cases.c.state == CaseState.CLOSED.value, cases.c.gold_of.is_(None))
_PRINT_OF_CASE = and_(FINGERPRINTS.c.tenant == cases.c.tenant, FINGERPRINTS.c.content_sha256 == cases.c.content_sha256)

FindCase = Callable[[str, Tenants], CaseView]


@dataclass(frozen=True, slots=True)
class Alike:
    """A closed case. `bits`: how many of the 256 differ; None: its bytes are the same. `family`: if one was named."""

    row: CaseRow
    bits: int | None
    family: str | None

    @property
    def words(self) -> str:
        """How alike, for people."""
        if self.bits is None:
            return "the same file"
        how = "the same picture, saved anew" if self.bits <= NEAR_DUPLICATE_BITS else "a similar picture"
        return f"{how}: {self.bits} of {BITS} bits differ"


@dataclass(frozen=True, slots=True)
class AlikeCases:
    """The nearest first; `said` tells why pictures could not be compared, or is empty."""

    found: tuple[Alike, ...]
    said: str


class SimilarCases:
    """Reads alone. `find` is `ReviewService.case`, which checks once more whose case it is."""

    def __init__(self, engine: Engine, find: FindCase) -> None:
        self._engine = engine
        self._find = find

    def of(self, case: CaseView, tenants: Tenants) -> AlikeCases:
        """Closed cases of these tenants with the same bytes or a picture at most `RADIUS_BITS` away."""
        facts = case.decision.facts
        if facts is None:
            return AlikeCases((), "There is no picture to compare: the bytes were never obtained or decoded.")
        with reading(self._engine) as connection:
            tried, own = _fingerprint(connection, case.decision.admission.tenant, facts.sha256)
            near: dict[str, int | None] = dict(_same_bytes(connection, case, facts.sha256, tenants))
            if own is not None:
                near |= {one: bits for one, bits in _nearest(connection, case, own, tenants) if one not in near}
        found = [alike for case_id, bits in near.items() if (alike := self._alike(case_id, bits, tenants))]
        return AlikeCases(tuple(found[:_SHOWN]), _why_not(tried, own))

    def _alike(self, case_id: str, bits: int | None, tenants: Tenants) -> Alike | None:
        try:
            view = self._find(case_id, tenants)
        except NoSuchCase:  # forgotten since
            return None
        named = [review.family for review in view.reviews if review.label is view.row.label and review.family]
        return Alike(view.row, bits, named[-1] if named else None)


def _why_not(tried: bool, own: bytes | None) -> str:
    if own is not None:
        return ""
    if not tried:
        return "The picture is not compared yet: load the page again in a moment."
    return "Its picture cannot be compared: it is gone, cannot be decoded, or is nearly of one colour."


def _fingerprint(connection: Connection, tenant: str, sha256: str) -> tuple[bool, bytes | None]:
    """Was it tried, and what came of it."""
    mine = (FINGERPRINTS.c.tenant == tenant, FINGERPRINTS.c.content_sha256 == sha256)
    row = connection.execute(select(FINGERPRINTS.c.dhash).where(*mine)).first()
    return row is not None, None if row is None else row.dhash


def _others(case: CaseView, tenants: Tenants) -> tuple[ColumnElement[bool], ...]:
    """Never the case itself, nor what a gold item was made of: that would tell the answer."""
    return (*_CLOSED, visible(tenants), cases.c.decision_uid != str(case.row.decision_uid))


def _same_bytes(connection: Connection, case: CaseView, sha256: str, tenants: Tenants) -> list[tuple[str, None]]:
    found = (
        select(cases.c.case_id)
        .where(*_others(case, tenants), cases.c.content_sha256 == sha256)
        .order_by(cases.c.closed_at.desc(), cases.c.case_id)
        .limit(_SHOWN)
    )
    return [(row.case_id, None) for row in connection.execute(found)]


def _nearest(connection: Connection, case: CaseView, own: bytes, tenants: Tenants) -> list[tuple[str, int]]:
    rows = connection.execute(compared(case, tenants)).all()
    if not rows:
        return []
    bits = distances(own, [row.dhash for row in rows])
    order = np.argsort(bits, kind="stable")[: 2 * _SHOWN]  # of those equally near the newest first
    return [(rows[at].case_id, int(bits[at])) for at in order if bits[at] <= RADIUS_BITS]


def compared(case: CaseView, tenants: Tenants) -> Select[Any]:
    """The statement for the hashes to look through, the newest case first."""
    return (
        select(cases.c.case_id, FINGERPRINTS.c.dhash)
        .join(FINGERPRINTS, _PRINT_OF_CASE)
        .where(*_others(case, tenants), FINGERPRINTS.c.dhash.is_not(None))
        .order_by(cases.c.closed_at.desc(), cases.c.case_id)
        .limit(_COMPARED)
    )


def distances(own: bytes, others: list[bytes]) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Hamming distances of 256-bit hashes, uint16 (N,)."""
    rows = np.frombuffer(b"".join(others), np.uint8).reshape(len(others), len(own))
    found: np.ndarray[tuple[int], np.dtype[np.uint16]] = np.bitwise_count(rows ^ np.frombuffer(own, np.uint8)).sum(
        axis=1, dtype=np.uint16
    )
    return found
