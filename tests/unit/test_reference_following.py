"""A spectral worker follows the published references: from the start, while it runs, and against strangers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from pipeline.evidence.log.signer import Signer
from pipeline.media.objects import StoredObject
from pipeline.observability.metrics import Metrics
from pipeline.streaming.side_input import SideInput
from pipeline.streaming.transport import RawRecord, TopicPartition
from schemas.reference import PublicationAction, ReferenceArtefact, ReferencePointer
from schemas.wire import decode, encode
from tests.support.learning import NOW, Site, random_reference
from tests.support.waiting import wait_until
from tests.support.worker_stages import BreakableObjects
from workers.adaptation.pointer import signed_pointer
from workers.adaptation.settings import ReferenceSettings
from workers.adaptation.store import ReferenceStore
from workers.spectral.following import Following, ReferencesUnusable
from workers.spectral.references import References

BASE = "c" * 64
SETTINGS = ReferenceSettings(retry_s=0.01)


class Topic:
    """One partition; `answered` counts the records that the follower asked for, and so has dealt with those before."""

    def __init__(self, *values: bytes, key: str = BASE) -> None:
        self.records = [record(value, key) for value in values]
        self.live: queue.SimpleQueue[RawRecord | Exception] = queue.SimpleQueue()
        self.asked = threading.Semaphore(0)
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.closed = True

    def to_end(self, timeout_s: float) -> Iterator[RawRecord]:
        yield from self.records

    def poll(self, timeout_s: float) -> RawRecord | None:
        self.asked.release()
        try:
            found = self.live.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found

    def write(self, value: bytes, key: str = BASE) -> None:
        """Returns once the follower has dealt with it."""
        while self.asked.acquire(blocking=False):
            pass
        self.live.put(record(value, key))
        for _ in range(2):  # the poll that may be under way, and the one after it
            assert self.asked.acquire(timeout=60)


def record(value: bytes, key: str) -> RawRecord:
    return RawRecord(TopicPartition("references", 0), 0, key.encode(), value)


class CountingObjects(BreakableObjects):
    """Counts what it refused while it was down."""

    refusals = 0

    def _check(self) -> None:
        self.refusals += self.down
        super()._check()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self._check()
        return super().list(prefix)


class Bench:
    """Published artefacts, keys, and followers that the test closes."""

    def __init__(self) -> None:
        self.site = Site()
        self.objects = CountingObjects("memory://")
        self.store = ReferenceStore(self.objects)
        self.artefact = self.store.put_artefact(random_reference())
        self.metrics = Metrics()
        self.followers: list[Following] = []

    def pointer(self, sequence: int, active: ReferenceArtefact | None = None, **changed: Any) -> bytes:
        signer = changed.pop("signer", self.site.signer)
        fields: dict[str, Any] = {
            "base": BASE,
            "sequence": sequence,
            "action": PublicationAction.PROMOTE,
            "active": active,
            "shadow": None,
            "actor": "ops",
            "reason": "",
            "published_at": NOW,
        }
        found: ReferencePointer = signed_pointer(signer, **{**fields, **changed})
        return encode(found)

    def kept(self, pointer: bytes, number: int | None = None) -> None:
        """In the history, under its own number or another."""
        sequence = decode(ReferencePointer, pointer).sequence if number is None else number
        self.objects.create(f"references/history/{BASE}/{sequence:010d}.json", pointer)

    def metric(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels or {})

    def follow(self, topic: Topic, settings: ReferenceSettings = SETTINGS) -> Following:
        found = Following(BASE, self.site.keys, self.store, settings, lambda: topic, now_s=lambda: 17.0)
        found.measure(self.metrics)
        self.followers.append(found)
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for follower in made.followers:
        follower.close()


def active(found: References) -> str | None:
    return found.active.version if found.active else None


def test_it_is_a_side_input(bench: Bench) -> None:
    follower: SideInput[References] = bench.follow(Topic())
    follower.open()
    assert follower.current() == References()


def test_the_newest_pointer_is_adopted_before_the_worker_is_ready(bench: Bench) -> None:
    topic = Topic(bench.pointer(1), b"no pointer at all", bench.pointer(2, bench.artefact))
    follower = bench.follow(topic)
    follower.open()
    found = follower.current()
    assert active(found) == random_reference().content_hash
    assert found.active is not None
    assert found.active.path.is_file()


def test_a_pointer_that_comes_later_is_adopted_while_deciding(bench: Bench) -> None:
    topic = Topic()
    follower = bench.follow(topic)
    follower.open()
    before = follower.current()
    topic.write(bench.pointer(1, None, shadow=bench.artefact))
    watching = follower.current()
    topic.write(bench.pointer(2, bench.artefact))
    deciding = follower.current()
    topic.write(bench.pointer(3))
    assert [before, watching.active, active(deciding)] == [References(), None, bench.artefact.version]
    assert watching.candidate == deciding.active
    assert follower.current() == References()


def refused(bench: Bench) -> dict[str, tuple[bytes, str]]:
    stranger = Signer.generate("tests/references")
    lost = bench.artefact.model_copy(
        update={"sha256": "e" * 64, "version": "e" * 64, "uri": f"memory:///references/artefacts/{'e' * 64}.npz"}
    )
    return {
        "unsigned": (b"{}", BASE),
        "signed by a stranger": (bench.pointer(9, bench.artefact, signer=stranger), BASE),
        "older": (bench.pointer(1, bench.artefact), BASE),
        "of the same number": (bench.pointer(2, bench.artefact), BASE),
        "for another bundle": (bench.pointer(9, bench.artefact, base="d" * 64), "d" * 64),
        "for another bundle under this key": (bench.pointer(9, bench.artefact, base="d" * 64), BASE),
        "without its file": (bench.pointer(9, lost), BASE),
        "from elsewhere": (bench.pointer(9, bench.artefact.model_copy(update={"uri": "s3://mallory/x"})), BASE),
        "of another major version": (bench.pointer(9).replace(b'"1.1"', b'"2.0"'), BASE),
        "an empty record": (b"", BASE),
    }


@pytest.mark.parametrize("which", sorted(refused(Bench())))
def test_while_deciding_a_bad_pointer_changes_nothing(which: str, bench: Bench) -> None:
    topic = Topic(bench.pointer(2))
    follower = bench.follow(topic)
    follower.open()
    topic.write(*refused(bench)[which])
    assert follower.current() == References()
    topic.write(bench.pointer(10, bench.artefact))
    assert active(follower.current()) == bench.artefact.version


@pytest.mark.parametrize("which", ["without its file", "from elsewhere"])
def test_at_the_start_a_signed_pointer_that_cannot_be_used_stops_the_worker(which: str, bench: Bench) -> None:
    topic = Topic(bench.pointer(1, bench.artefact), refused(bench)[which][0])
    follower = bench.follow(topic)
    with pytest.raises(ReferencesUnusable, match=r"the newest pointer for this bundle cannot be used: .*rollback"):
        follower.open()
    assert topic.closed


@pytest.mark.parametrize(
    "which",
    [
        "unsigned",
        "signed by a stranger",
        "for another bundle under this key",
        "older",
        "of another major version",
        "an empty record",
    ],
)
def test_at_the_start_strangers_and_tombstones_change_nothing(which: str, bench: Bench) -> None:
    """An empty record is what a tombstone is read as."""
    follower = bench.follow(Topic(bench.pointer(2, bench.artefact), refused(bench)[which][0]))
    follower.open()
    assert active(follower.current()) == bench.artefact.version
    topic = bench.follow(Topic(refused(bench)[which][0]))
    topic.open()
    assert active(topic.current()) == (bench.artefact.version if which == "older" else None)


@pytest.mark.parametrize("left", [(), (b"",), (1,)])
def test_what_the_topic_lost_is_in_the_history(left: tuple[int | bytes, ...], bench: Bench) -> None:
    """Compaction removed it, a tombstone did, or an old pointer was written over it."""
    for sequence, artefact in ((1, None), (2, bench.artefact)):
        bench.kept(bench.pointer(sequence, artefact))
    follower = bench.follow(Topic(*(bench.pointer(v) if isinstance(v, int) else v for v in left)))
    follower.open()
    assert active(follower.current()) == bench.artefact.version
    assert bench.metric("mediasieve_reference_sequence") == 2.0


def test_a_history_that_nobody_trusted_wrote_stops_the_worker(bench: Bench) -> None:
    bench.kept(bench.pointer(1, bench.artefact))
    bench.kept(bench.pointer(2, signer=Signer.generate("tests/references")))
    with pytest.raises(ReferencesUnusable, match="no key in use"):
        bench.follow(Topic(bench.pointer(1, bench.artefact))).open()


def test_an_old_pointer_under_a_new_number_of_the_history_stops_the_worker(bench: Bench) -> None:
    bench.kept(bench.pointer(1, bench.artefact), number=2)
    with pytest.raises(ReferencesUnusable, match="holds pointer 1 of cccccccccccc as number 2"):
        bench.follow(Topic()).open()


def test_the_history_is_waited_for_before_the_worker_is_ready(bench: Bench) -> None:
    bench.objects.down = True
    follower = bench.follow(Topic(), ReferenceSettings(start_timeout_s=0.05, retry_s=0.01))
    with pytest.raises(ReferencesUnusable, match=r"after 0\.05 s: "):
        follower.open()


def test_a_corrupted_artefact_is_not_adopted(bench: Bench) -> None:
    topic = Topic(bench.pointer(1))
    follower = bench.follow(topic)
    follower.open()
    key = f"references/artefacts/{bench.artefact.sha256}.npz"
    good = bench.objects.read(key)
    bench.objects.replace(key, good[:-1] + b"x")
    topic.write(bench.pointer(2, bench.artefact))
    assert follower.current() == References()
    with pytest.raises(ReferencesUnusable, match="does not have the digest"):
        bench.follow(Topic(bench.pointer(2, bench.artefact))).open()
    bench.objects.replace(key, good)
    topic.write(bench.pointer(3, bench.artefact))
    assert active(follower.current()) == bench.artefact.version


def test_metrics_say_what_is_in_force_and_what_was_refused(bench: Bench) -> None:
    topic = Topic(bench.pointer(1))
    follower = bench.follow(topic)
    follower.open()
    facts = {"base": BASE, "active": BASE, "candidate": ""}
    assert bench.metric("mediasieve_reference_info", facts) == 1.0
    assert bench.metric("mediasieve_reference_adopted_seconds") == 17.0
    topic.write(bench.pointer(2, bench.artefact))
    assert bench.metric("mediasieve_reference_info", facts) is None
    assert bench.metric("mediasieve_reference_info", facts | {"active": bench.artefact.version}) == 1.0
    assert bench.metric("mediasieve_reference_sequence") == 2.0
    topic.write(bench.pointer(1))
    topic.write(b"nothing")
    assert bench.metric("mediasieve_reference_refused_total", {"cause": "Replayed"}) == 1.0
    assert bench.metric("mediasieve_reference_refused_total", {"cause": "Untrusted"}) == 1.0
    assert bench.metric("mediasieve_reference_waits") == 0.0


def test_pointers_of_other_bundles_do_not_matter_at_the_start(bench: Bench) -> None:
    topic = Topic(b"whatever", key="d" * 64)
    follower = bench.follow(topic)
    follower.open()
    assert follower.current() == References()


def test_a_store_that_is_away_is_waited_for(bench: Bench) -> None:
    topic = Topic()
    follower = bench.follow(topic)
    follower.open()
    bench.objects.down = True
    topic.live.put(record(bench.pointer(1, bench.artefact), BASE))
    wait_until(lambda: bench.objects.refusals > 1, 60, "two attempts")
    assert follower.current() == References()
    bench.objects.down = False
    wait_until(lambda: active(follower.current()) == bench.artefact.version, 60, "the reference")


def test_at_the_start_a_store_that_stays_away_stops_the_worker(bench: Bench) -> None:
    bench.objects.down = True
    follower = bench.follow(
        Topic(bench.pointer(1, bench.artefact)), ReferenceSettings(start_timeout_s=0.05, retry_s=0.01)
    )
    with pytest.raises(ReferencesUnusable, match=r"after 0\.05 s: "):
        follower.open()


def test_a_topic_that_can_no_longer_be_read_stops_the_worker(bench: Bench) -> None:
    topic = Topic()
    follower = bench.follow(topic)
    follower.open()
    topic.live.put(OSError("the broker refuses to be read"))

    def failed() -> bool:
        try:
            follower.current()
        except OSError as error:
            return "refuses to be read" in str(error)
        return False

    wait_until(failed, 60, "the failure")


def test_its_files_go_when_it_is_closed(bench: Bench) -> None:
    topic = Topic(bench.pointer(1, bench.artefact))
    follower = bench.follow(topic)
    follower.open()
    found = follower.current().active
    assert found is not None
    directory: Path = found.path.parent
    follower.close()
    follower.close()
    assert not directory.exists()
    assert topic.closed
