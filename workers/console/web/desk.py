"""What the handlers work with, built once by the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Engine

from pipeline.evaluation.monitoring.misses import MissReport
from pipeline.streaming.clock import Clock
from schemas.types import StageName
from workers.console.domain.service import ReviewService
from workers.console.web.accounts import Accounts
from workers.console.web.casefile import CaseFiles
from workers.console.web.families import Families
from workers.console.web.fingerprints import Fingerprinter
from workers.console.web.images import Images
from workers.console.web.login_limit import LoginLimit
from workers.console.web.sessions import Sessions
from workers.console.web.settings import PageSettings
from workers.console.web.similar import SimilarCases
from workers.console.web.tables import create_tables


@dataclass(frozen=True, slots=True)
class StageLag:
    """How far a stage is behind: records that wait, and what that is in seconds at its rate."""

    stage: StageName
    records: int
    seconds: float


class LagSource(Protocol):
    """Who knows how far the fleet is behind."""

    def lag(self) -> tuple[Sequence[StageLag], str]:
        """Of each stage, and a sentence that says why when nothing is known. Answers at once, from what is at hand."""


class NoLag:
    """For a console that cannot ask the brokers."""

    def lag(self) -> tuple[Sequence[StageLag], str]:
        """See LagSource."""
        return (), "The consumer lag is not known here: the console is not connected to Kafka."


class MissSource(Protocol):
    """Who knows what stage 1 misses."""

    def misses(self) -> tuple[MissReport | None, str]:
        """The last report, and a sentence that says why when there is none. Answers at once, from what is at hand."""


class NoMisses:
    """For a console that does not measure it."""

    def misses(self) -> tuple[MissReport | None, str]:
        """See MissSource."""
        return None, "It is not measured here: console.page.misses_days is 0."


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything behind the pages. `https`: cookies are sent over TLS alone."""

    service: ReviewService
    accounts: Accounts
    sessions: Sessions
    limit: LoginLimit
    files: CaseFiles
    images: Images
    fingerprints: Fingerprinter
    similar: SimilarCases
    families: Families
    clock: Clock
    settings: PageSettings
    lag: LagSource
    misses: MissSource
    https: bool


def open_desk(
    *,
    engine: Engine,
    clock: Clock,
    service: ReviewService,
    files: CaseFiles,
    images: Images,
    settings: PageSettings,
    lag: LagSource,
    misses: MissSource,
    https: bool,
) -> Desk:
    """With the page's own tables made in the database of the queue."""
    create_tables(engine)
    return Desk(
        service=service,
        accounts=Accounts(engine, clock),
        sessions=Sessions(engine, settings.session_s, settings.idle_s, clock),
        limit=LoginLimit(engine, clock),
        files=files,
        images=images,
        fingerprints=Fingerprinter(engine, files.reader, images),
        similar=SimilarCases(engine, service.case),
        families=Families(engine, clock),
        clock=clock,
        settings=settings,
        lag=lag,
        misses=misses,
        https=https,
    )
