"""A review console with cases in it, for tests of its pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from uuid import uuid5

import numpy as np
from PIL import Image
from pydantic import SecretStr

from pipeline.media.content_store import ContentStore
from pipeline.media.decode import DecodeLimits
from schemas.decision import Decision
from schemas.media import MediaFacts
from tests.support.explaining import TENANT, Case, encrypted_store
from tests.support.mllm import encoded
from workers.classifier.settings import SandboxSettings
from workers.console.domain.intake import Decided, Intake
from workers.console.domain.service import ReviewService
from workers.console.domain.settings import ReviewSettings
from workers.console.web.casefile import CaseFiles
from workers.console.web.desk import Desk, LagSource, MissSource, NoLag, NoMisses, open_desk
from workers.console.web.images import Images
from workers.console.web.settings import PageSettings
from workers.explain.evidence import EvidenceReader
from workers.web.database import DatabaseSettings, open_database
from workers.web.principal import Role

PASSWORD = "correct horse battery"
OTHER_TENANT = "sports-desk"
ATTACK = "</pre></textarea><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
"""Markup that would run if anything wrote it as it is."""

ATTACK_URI = "https://media.example.org/\"><img/src=x/onerror=document.title='run'>"
_TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


class WallClock:
    """Stands still until it is moved."""

    def __init__(self, now: float = 1_770_000_000.0) -> None:
        self.now = now

    def wall_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.now


@dataclass(slots=True)
class Office:
    """The desk of a console, its clock, and the store in which the evidence of its cases lies."""

    desk: Desk
    clock: WallClock
    store: ContentStore
    intake: Intake

    def escalated(self, media_id: str = "img-1", tenant: str = TENANT, **changes: object) -> str:
        """An open case; its id."""
        return self.take(self.case(media_id, **changes).escalated(), tenant)

    def blocked(self, media_id: str = "img-9", tenant: str = TENANT, **changes: object) -> str:
        """A case that the machine blocked; its id."""
        return self.take(self.case(media_id, **changes).blocked(), tenant)

    def case(self, media_id: str, **changes: object) -> Case:
        given = {"original": photograph(), "panel": panel(), "facts": facts(photograph())}
        return Case(store=self.store, media_id=media_id, **(given | changes))  # type: ignore[arg-type]

    def take(self, decision: Decision, tenant: str = TENANT, ago_s: float = 600.0) -> str:
        """As the consumer of the decision topics does; the decision is as old as asked for."""
        uid = decision.decision_uid if tenant == TENANT else uuid5(decision.decision_uid, tenant)
        admission = decision.admission.model_copy(update={"tenant": tenant, "decision_uid": uid})
        at = datetime.fromtimestamp(self.clock.now, UTC) - timedelta(seconds=ago_s)
        changed = decision.model_copy(update={"admission": admission, "decision_uid": uid, "decided_at": at})
        assert self.intake.store([Decided(changed, _TRACE)]) == 1
        return str(uid)

    def hire(self, name: str, tenants: list[str] | None = None, role: Role = Role.REVIEW) -> None:
        """An account with the password of these tests."""
        self.desk.accounts.add(name, PASSWORD, [TENANT] if tenants is None else tenants, [role])


@contextmanager
def office(
    folder: Path,
    *,
    clock: WallClock | None = None,
    review: ReviewSettings | None = None,
    page: PageSettings | None = None,
    lag: LagSource | None = None,
    misses: MissSource | None = None,
    https: bool = False,
) -> Iterator[Office]:
    """A console on a database of its own; its decoders start with the app."""
    clock = clock or WallClock()
    settings = review or ReviewSettings(gold_share=0.0)
    engine = open_database(DatabaseSettings(url=SecretStr(f"sqlite:///{folder}/console.sqlite")))
    store = encrypted_store()
    desk = open_desk(
        engine=engine,
        clock=clock,
        service=ReviewService(engine, clock, settings),
        files=CaseFiles(EvidenceReader(store), None, threads=2),
        images=Images(DecodeLimits(), SandboxSettings(workers=1)),
        settings=page or PageSettings(),
        lag=lag or NoLag(),
        misses=misses or NoMisses(),
        https=https,
    )
    try:
        yield Office(desk, clock, store, Intake(engine, clock, settings))
    finally:
        engine.dispose()


@cache
def photograph(width: int = 1400, height: int = 1000) -> bytes:
    """Something to look at: a lit ball before a striped wall."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wall = 110 + 40 * np.sin(x / 23) + 20 * (y / height)
    light = np.clip(1 - np.hypot(x - 0.45 * width, y - 0.4 * height) / (0.33 * height), 0, 1)
    ball = np.hypot(x - 0.5 * width, y - 0.5 * height) < 0.3 * height
    planes = [np.where(ball, 40 + 200 * light * tint, wall * tone) for tint, tone in ((1, 1), (0.75, 0.9), (0.5, 0.7))]
    noise = np.random.default_rng(7).normal(0, 4, (height, width))
    pixels = np.clip(np.stack(planes, -1) + noise[..., None], 0, 255).astype(np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", quality=90)


@cache
def panel() -> bytes:
    """Of the size of a real one."""
    return encoded(Image.new("RGB", (1024, 960), "white"))


def facts(original: bytes, width: int = 1400, height: int = 1000) -> MediaFacts:
    """Of a JPEG."""
    return MediaFacts(
        sha256=sha256(original).hexdigest(),
        size_bytes=len(original),
        format="jpeg",
        lossless=False,
        width=width,
        height=height,
        jpeg_quality=90,
    )
