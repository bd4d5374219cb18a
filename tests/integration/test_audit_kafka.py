"""The audit worker's loop over a real broker: transactions, aborted ones, retention, topics made anew, two members."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from pipeline.evidence.log.errors import Superseded
from pipeline.evidence.log.leaf import Leaf
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import AUDITED_TOPICS, Topic
from tests.support.audit_kafka import AuditSite
from tests.support.kafka import PARTITIONS, TIMEOUT_S, create_topics, delete_topics, produce, read_all
from tests.support.waiting import wait_until
from workers.audit.errors import AuditContradiction, AuditGap

ALL_TREES = len(AUDITED_TOPICS) * PARTITIONS


@pytest.fixture
def site(kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str, tmp_path: Path) -> AuditSite:
    return AuditSite(kafka.bootstrap, prefix, tmp_path)


def leaves(site: AuditSite, tree: str) -> list[Leaf]:
    place = site.place
    reader = place.reader(tree, place.keys())
    return [Leaf.parse(entry) for entry in reader.entries(0, reader.checkpoint().size)]


def logged(site: AuditSite) -> list[tuple[str, int, int, str]]:
    """All that the log holds, tree by tree in its order."""
    return [
        (leaf.topic.value, leaf.partition, leaf.offset, leaf.record_sha256)
        for tree in site.place.trees()
        for leaf in leaves(site, tree)
    ]


def test_committed_records_are_logged_once_and_aborted_ones_never(site: AuditSite) -> None:
    good, bad = site.producer("good"), site.producer("bad")
    for batch in range(6):
        site.transact(good, [f"good-{batch}-{n}" for n in range(5)])
        site.transact(bad, [f"bad-{batch}-{n}" for n in range(5)], commit=False)
    site.transact(good, [f"pass-{n}" for n in range(10)], Topic.PASS)
    loop = site.loop()
    site.turn_until(site.caught_up, loop)
    loop.abandon(RuntimeError("the test is over"))

    names = [f"{site.prefix}.{topic}" for topic in AUDITED_TOPICS]
    expected = {
        (
            str(m.topic()).removeprefix(f"{site.prefix}."),
            m.partition(),
            m.offset(),
            hashlib.sha256(m.value()).hexdigest(),
        )
        for m in read_all(site.bootstrap, names, 40)
    }
    found = logged(site)
    assert len(found) == 40
    assert set(found) == expected
    offsets = [leaf.offset for leaf in leaves(site, "decisions.block/0")]
    assert offsets != list(range(len(offsets))), "markers and aborted records leave gaps"
    compared = site.completeness()
    assert len(compared) == ALL_TREES
    assert (sum(c.compared for c in compared), sum(c.pending for c in compared)) == (40, 0)
    assert all(c.ok for c in compared)


def test_a_restart_logs_what_came_meanwhile(site: AuditSite) -> None:
    producer = site.producer("p")
    for run in range(3):
        site.transact(producer, [f"{run}-{n}" for n in range(20)])
        site.transact(producer, [f"{run}-{n}-not" for n in range(20)], commit=False)
        loop = site.loop()
        site.turn_until(site.caught_up, loop)
        loop.run(lambda: True) if run == 0 else loop.abandon(RuntimeError("as after a crash"))
    assert [c.ok for c in site.completeness()].count(False) == 0
    assert len(logged(site)) == len({row[:3] for row in logged(site)}) == 60


def test_two_members_share_the_trees_and_log_everything_once(site: AuditSite) -> None:
    producer = site.producer("p")
    first = site.loop()
    site.transact(producer, [f"0-{n}" for n in range(50)])
    site.turn_until(site.caught_up, first)
    second = site.loop()
    site.turn_until(lambda: bool(second._trees) and len(second._trees) + len(first._trees) == ALL_TREES, first, second)
    site.transact(producer, [f"1-{n}" for n in range(50)])
    site.turn_until(site.caught_up, first, second)
    first.run(lambda: True)
    site.transact(producer, [f"2-{n}" for n in range(50)])
    site.turn_until(site.caught_up, second)
    second.run(lambda: True)
    assert (len(logged(site)), sum(c.compared for c in site.completeness())) == (150, 150)


def test_removed_records_stop_the_worker_until_an_operator_accepts_the_gap(site: AuditSite) -> None:
    name = f"{site.prefix}.{Topic.REVIEWS}"
    produce(site.bootstrap, name, [b"%d" % n for n in range(4)])
    loop = site.loop()
    site.turn_until(site.caught_up, loop)
    loop.run(lambda: True)
    produce(site.bootstrap, name, [b"%d" % n for n in range(4, 10)])
    site.delete_records(Topic.REVIEWS, 0, 7)
    loop = site.loop()
    with pytest.raises(AuditGap, match=r"offsets 4 to 6 .*accept-gap reviews.verdicts 0 --until 7") as stopped:
        site.turn_until(site.caught_up, loop)
    loop.abandon(stopped.value)

    code, said = site.cli("accept-gap", Topic.REVIEWS.value, "0", "--until", "7")
    assert (code, "offsets 4 to 6 were never logged" in said) == (0, True)
    code, said = site.cli("accept-gap", Topic.REVIEWS.value, "0", "--until", "7")
    assert (code, "nothing is missing below 7" in said) == (2, True)
    loop = site.loop()
    site.turn_until(site.caught_up, loop)
    loop.run(lambda: True)
    found = [(leaf.offset, leaf.gap_from) for leaf in leaves(site, "reviews.verdicts/0")]
    assert found == [(0, None), (1, None), (2, None), (3, None), (6, 4), (7, None), (8, None), (9, None)]
    assert site.cli("verify", "--all", "--kafka")[0] == 0


def test_a_topic_that_was_made_anew_is_refused(site: AuditSite) -> None:
    name = f"{site.prefix}.{Topic.ERASURES}"
    produce(site.bootstrap, name, [b"first %d" % n for n in range(4)])
    loop = site.loop()
    site.turn_until(site.caught_up, loop)
    loop.run(lambda: True)
    delete_topics(site.bootstrap, [name])
    gone = AdminClient({"bootstrap.servers": site.bootstrap})
    wait_until(lambda: name not in gone.list_topics(timeout=TIMEOUT_S).topics, TIMEOUT_S, f"{name} is gone")
    create_topics(site.bootstrap, site.prefix)
    produce(site.bootstrap, name, [b"second %d" % n for n in range(9)])
    loop = site.loop()
    with pytest.raises(AuditContradiction, match="made anew") as stopped:
        site.turn_until(lambda: False, loop)
    loop.abandon(stopped.value)
    assert len(logged(site)) == 4


def test_another_writer_on_the_log_ends_the_worker(site: AuditSite) -> None:
    producer = site.producer("p")
    site.transact(producer, [f"0-{n}" for n in range(20)])
    loop = site.loop()
    site.turn_until(site.caught_up, loop)
    last = leaves(site, "decisions.block/1")[-1]
    code, said = site.cli("accept-gap", Topic.BLOCK.value, "1", "--until", str(last.offset + 2))
    assert code == 0, said
    site.transact(producer, [f"1-{n}" for n in range(20)])
    with pytest.raises(Superseded) as stopped:
        site.turn_until(lambda: False, loop)
    loop.abandon(stopped.value)
    assert leaves(site, "decisions.block/1")[-1].gap_from == last.offset + 1, "nothing was written behind it"
