"""Many scripted reviewers at once on one database, each a process of its own that may die at any point.

Time is a clock that every action moves on, so that leases run out while others work, on any machine alike.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from sqlalchemy import event

from pipeline.streaming.transport import OutRecord, Place
from schemas.review import Label
from tests.support.reviewing import Kafka, Site, escalated
from workers.console.domain.errors import AlreadyDecided, NotYours, StaleLease
from workers.console.domain.models import Claim
from workers.console.domain.publisher import LEAD_S, OutboxPublisher
from workers.console.domain.settings import PrioritySettings, ReviewSettings

SETTINGS = ReviewSettings(
    lease_s=120.0, skip_hold_s=600.0, publish_batch=200, priority=PrioritySettings(ageing_s=1800.0)
)
_LABELS = (Label.GENERATED, Label.PHOTOGRAPH, Label.AI_PROCESSED, Label.UNDECIDABLE)
_ACTION_S = 0.2
_CHUNK = 50


class Died(Exception):
    """The process ends here; nothing of the transaction in hand is kept."""


class SharedClock:
    """Moved on by everybody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now_s = 1_700_000_000.0

    def monotonic_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now_s += seconds


class Broker(Kafka):
    """Takes records of several publishers at once."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def send(self, record: OutRecord) -> Future[Place]:
        with self._lock:
            return super().send(record)


@dataclass
class Tally:
    """What happened, to show that the drill was one."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str) -> None:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1


class Drill:
    """`run` returns when every case is closed and published."""

    def __init__(self, home: Path, cases: int, reviewers: int, seed: int, url: str | None = None) -> None:
        """`url`: of an empty database; none: SQLite in `home`."""
        self.site = Site(home, SETTINGS, url=url)
        self.site.clock = SharedClock()  # type: ignore[assignment]
        self.site.kafka = Broker()
        self.site.service = self.site.process()
        self.site.intake._clock = self.site.clock
        self.cases = cases
        self.reviewers = reviewers
        self.seed = seed
        self.tally = Tally()
        self.stored_at: dict[str, float] = {}
        self.leases: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
        self._ended = threading.Event()

    @property
    def clock(self) -> SharedClock:
        return self.site.clock  # type: ignore[return-value]

    def run(self) -> None:
        self._arrive(range(self.cases // 2), spread_s=3600.0)
        with ThreadPoolExecutor(self.reviewers + 3) as pool:
            arriving = pool.submit(self._arrivals)
            publishing = [pool.submit(self._publisher, number) for number in range(2)]
            working = [pool.submit(self._reviewer, number, arriving.done) for number in range(self.reviewers)]
            try:
                for one in (arriving, *working):
                    one.result()
            finally:
                self._ended.set()
            for one in publishing:
                one.result()
        self.clock.advance(LEAD_S)
        self.site.publish()

    def _arrivals(self) -> None:
        """The second half comes as the first is worked on: one for each that is closed."""
        for first in range(self.cases // 2, self.cases, _CHUNK):
            self._arrive(range(first, min(first + _CHUNK, self.cases)), spread_s=0.0)
            while self.site.service.backlog().waiting > self.cases // 2:
                if self._ended.wait(0.01):
                    return

    def _arrive(self, numbers: range, spread_s: float) -> None:
        now = self.clock.wall_s()
        rng = random.Random(self.seed + numbers.start)
        made = [
            escalated(number, now - rng.uniform(0.0, spread_s), score=rng.random(), scores=(rng.random(), rng.random()))
            for number in numbers
        ]
        ids = self.site.add(*made)
        self.stored_at |= dict.fromkeys(ids, self.clock.wall_s())

    def _publisher(self, number: int) -> None:
        """Dies now and then between any two steps; another life begins."""
        rng = random.Random(f"{self.seed}/publisher/{number}")

        def perhaps_die(_: str) -> None:
            if rng.random() < 0.1:
                raise Died

        life: OutboxPublisher | None = None
        while not self._ended.wait(0.01):
            life = life or self.site.publisher(perhaps_die)
            try:
                life.turn()
            except Died:
                self.tally.add("publisher died")
                life = None

    def _reviewer(self, number: int, arrived: Callable[[], bool]) -> None:
        person = Person(self, f"r{number}", random.Random(f"{self.seed}/{number}"))
        try:
            self._work(person, arrived)
        finally:
            person.engine.dispose()

    def _work(self, person: Person, arrived: Callable[[], bool]) -> None:
        while True:
            no_more = arrived()
            if person.turn():
                continue
            if no_more and self.site.service.backlog().waiting == 0:
                return
            self.clock.advance(1.0)  # nothing for this one now: time passes


class Person:
    """One reviewer: claims, thinks, answers, and is struck by all kinds of mishap."""

    def __init__(self, drill: Drill, name: str, rng: random.Random) -> None:
        self.drill = drill
        self.name = name
        self.rng = rng
        self.late: list[Claim] = []
        self._dies = False
        self._begin()

    def _begin(self) -> None:
        """A process with connections of its own."""
        self.engine = self.drill.site.database()
        self.service = self.drill.site.process(self.engine)
        event.listen(self.engine, "commit", self._perhaps_die)

    def turn(self) -> bool:
        """One case; False when there is none."""
        self._pass(1.0)
        if self.late and self.rng.random() < 0.3:
            self._answer(self.late.pop(0), "late")
        claim = self.service.claim(self.name, None)
        if claim is None:
            return False
        self.drill.leases[claim.case_id].append((claim.reviewer, claim.token, claim.until.timestamp()))
        match self.rng.random():
            case x if x < 0.05:
                self._walk_away(claim)
            case x if x < 0.08:
                self._die_while_answering(claim)
            case x if x < 0.11:
                self._try("skipped", lambda: self.service.skip(claim.token, "not mine", reviewer=self.name))
            case x if x < 0.14:
                self._try("released", lambda: self.service.release(claim.token, reviewer=self.name))
            case x if x < 0.18:
                self._answer(claim, "answered")
                self._answer(claim, "answered twice")
            case _:
                self._answer(claim, "answered")
        return True

    def _walk_away(self, claim: Claim) -> None:
        """The lease runs out, and the answer comes long after."""
        self.late.append(claim)
        self._pass(SETTINGS.lease_s / _ACTION_S * 1.1)
        self._said("walked away")

    def _die_while_answering(self, claim: Claim) -> None:
        self._dies = True
        try:
            self.service.decide(claim.token, self._label(claim), "", reviewer=self.name)
        except Died:
            self._said("died")
        except (StaleLease, NotYours):
            self._said("died late")
        finally:
            self._dies = False
        self.engine.dispose()
        self._begin()

    def _answer(self, claim: Claim, how: str) -> None:
        self._pass(3.0)
        self._try(how, lambda: self.service.decide(claim.token, self._label(claim), "", reviewer=self.name))

    def _try(self, how: str, action: Callable[[], object]) -> None:
        """The lease may have run out meanwhile."""
        try:
            action()
            self._said(how)
        except (StaleLease, NotYours, AlreadyDecided) as error:
            self._said(f"{how}: {type(error).__name__}")

    def _label(self, claim: Claim) -> Label:
        """Most agree on a case."""
        if self.rng.random() < 0.1:
            return self.rng.choice(_LABELS)
        return _LABELS[sha256(claim.case_id.encode()).digest()[0] % len(_LABELS)]

    def _pass(self, actions: float) -> None:
        self.drill.clock.advance(self.rng.uniform(0.5, 1.5) * actions * _ACTION_S)

    def _said(self, what: str) -> None:
        self.drill.tally.add(what)

    def _perhaps_die(self, _: object) -> None:
        if self._dies:
            raise Died
