"""More partitions, and fewer brokers, under load."""

from __future__ import annotations

import time
from pathlib import Path

from tests.runbooks.producer import SteadyProducer
from tests.runbooks.site import PARTITIONS, STAGES, Site, say, site
from workers.demo_audit import audit_environment

ALONE_S = 20.0
_SPREAD = "python -m tests.runbooks.admin spread media.ingest media.suspect"


def partition_increase(home: Path) -> None:
    """4 to 8 partitions of every topic but the compacted one, while the fleet works."""
    wanted = 2 * PARTITIONS
    with site(home, audit_environment(home)) as place:
        old = place.start(*STAGES)
        place.start("audit")
        with place.load(10.0) as producer:
            producer.reaches(80)
            place.now(producer, "before")
            place.sh(f"mediasieve topics apply --partitions {wanted} --replication-factor 1", lines=6, expect=1)
            place.sh(f"python -m tests.runbooks.admin partitions {wanted}", lines=3)
            place.sh(f"mediasieve topics check --partitions {wanted} --replication-factor 1")
            producer.reaches(len(producer.published) + 50)
            place.sh(_SPREAD)
            for worker in old:
                place.start(worker.member.stage)
                assert worker.stop() == 0
            place.start(*STAGES)
        say("# the producer is started again")
        with place.load(10.0, "later") as producer:
            producer.reaches(150)
        place.exact()
        place.sh(_SPREAD)
        _audited(place)


def _audited(place: Site) -> None:
    place.sh("python -m tests.runbooks.admin wait-lag audit")
    place.sh("mediasieve audit verify --all --kafka", lines=4)


def broker_loss(home: Path) -> None:
    """Of three brokers one is killed, then a second; the fleet goes on with two, waits with one."""
    with site(home, brokers=3) as place:
        place.start(*STAGES)
        with place.load(8.0) as producer:
            producer.reaches(60)
            place.now(producer, "three brokers")
            _kill(place, 2)
            _goes_on(place, producer)
            _kill(place, 1)
            acknowledged = len(producer.published)
            time.sleep(ALONE_S)  # how long the outage lasts
            say(f"# one broker, {ALONE_S:g} s later: {len(producer.published) - acknowledged} more acknowledged")
            _restart(place, 1)
            producer.reaches(len(producer.published) + 80)
            _restart(place, 2)
            producer.reaches(len(producer.published) + 40)
        place.exact()
        for worker in place.workers:
            waits = worker.log.count('"event":"commit_failed"'), worker.log.count('"event":"consumer_waits"')
            say(f"# {worker.label}: commit_failed {waits[0]}, consumer_waits {waits[1]}")
            worker.fleet.check()


def _goes_on(place: Site, producer: SteadyProducer) -> None:
    """Until what was published 5 s from now is answered."""
    killed_s = time.monotonic()
    producer.reaches(len(producer.published) + 40)
    place.catch_up(producer)
    place.now(producer, f"two brokers, {time.monotonic() - killed_s:.0f} s later")


def _kill(place: Site, broker: int) -> None:
    say(f"$ kill -KILL {place.broker.pids[broker]}   # broker {broker + 1}")
    place.broker.kill(broker)


def _restart(place: Site, broker: int) -> None:
    place.broker.restart(broker)
    say(f"# broker {broker + 1} is started again")
