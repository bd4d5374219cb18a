"""A program of its own that knows topics and nothing else, and judges what a reader of them sees.

    python -m tests.fault.verifier --bootstrap HOST:PORT --prefix PREFIX --inputs FILE

It reads decisions and dead letters read_committed from the first record on, while faults run, and prints a line of
JSON every second. When its standard input ends it waits until no transaction is open, reads on to the end, reads
everything a second time with a fresh consumer, and prints its verdict. Exit 0: every input has exactly as many
answers as it was sent, and both readings saw the same.
"""

from __future__ import annotations

import argparse
import select
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exports, unmarked

TOPICS = ("decisions.pass", "decisions.escalate", "decisions.block", "media.deadletter")
HANDED_ON = ("media.suspect", "media.suspect.priority", "media.anomalous", "media.anomalous.priority")
DEAD_LETTER_HEADER = "mediasieve-dead-letter"
OPEN_TRANSACTION_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 60.0
READ_OPEN_S = 5.0
OPEN_RECORDS_SHOWN = 5
LEADER_MOVES = (KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH)

Ends = dict[tuple[str, int], int]
"""Topic and partition -> offset."""


@dataclass
class Answers:
    """What one reading saw. `places` are topic, partition and offset: the same record twice would show there."""

    by_media: Counter[str] = field(default_factory=Counter)
    by_topic: Counter[str] = field(default_factory=Counter)
    by_stage: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    uids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    places: set[tuple[str, int, int]] = field(default_factory=set)

    def add(self, message: Message) -> None:
        """Count one decision or dead letter."""
        topic = message.topic() or ""
        self.places.add((topic, message.partition() or 0, message.offset() or 0))
        if topic.endswith("media.deadletter"):
            headers = dict(message.headers() or ())
            letter = orjson.loads(headers[DEAD_LETTER_HEADER] or b"")
            self._count("media.deadletter", letter["media_id"], letter["stage"], letter["code"])
            return
        finding = orjson.loads(message.value() or b"")
        decision = finding["unmapped"]["mediasieve"]
        media_id, why = decision["admission"]["media_id"], decision["reasons"][0]["code"]
        self._count(f"decisions.{decision['outcome']}", media_id, decision["stage_exited"], why)
        if why != "analysis_crash":  # given up before the bytes were seen: the uid names no content then
            self.uids[media_id].add(decision["decision_uid"])

    def _count(self, topic: str, media_id: str, stage: str, why: str) -> None:
        self.by_media[media_id] += 1
        self.by_topic[topic] += 1
        self.by_stage[stage] += 1
        self.reasons[why] += 1

    def missing(self, sent: Counter[str]) -> Counter[str]:
        """Inputs with fewer answers than sends."""
        return sent - self.by_media

    def doubled(self, sent: Counter[str]) -> Counter[str]:
        """Inputs with more answers than sends; inputs that nobody sent are `unexpected`."""
        return Counter({m: n - sent[m] for m, n in self.by_media.items() if m in sent and n > sent[m]})

    def shared_uids(self) -> list[str]:
        """Decision uids that more than one media id has."""
        owners: Counter[str] = Counter(uid for uids in self.uids.values() for uid in uids)
        return [uid for uid, n in owners.items() if n > 1]


class Reader:
    """All partitions of the topics from the first record on, without a group."""

    def __init__(self, bootstrap: str, topics: Sequence[str], isolation: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "verifier-never-commits",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": isolation,
                "enable.partition.eof": True,  # says where a partition ends, markers of transactions included
                "log_level": 2,
            }
        )
        known = self._consumer.list_topics(timeout=READ_TIMEOUT_S).topics
        self.partitions = [TopicPartition(t, p, 0) for t in topics for p in known[t].partitions]
        self._consumer.assign(self.partitions)
        self._reached: dict[tuple[str, int], int] = {}

    def poll(self, timeout_s: float) -> list[Message]:
        """What has come; errors of a broker that is away are passed over, it comes back."""
        found = []
        for message in self._consumer.consume(500, timeout_s):
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._reached[message.topic() or "", message.partition() or 0] = message.offset() or 0
            elif error.fatal() or error.code() == KafkaError.OFFSET_OUT_OF_RANGE:
                raise SystemExit(f"verifier cannot read: {error}")
        return found

    def until(self, ends: Ends) -> Iterator[Message]:
        """Everything up to these end offsets."""
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        while any(self._reached.get(tp, 0) < end for tp, end in ends.items()):
            if time.monotonic() > deadline_s:
                raise SystemExit(f"verifier did not reach {ends} in {READ_TIMEOUT_S:.0f} s")
            yield from self.poll(0.2)

    def close(self) -> None:
        self._consumer.close()


def settled_ends(bootstrap: str, partitions: Sequence[TopicPartition]) -> tuple[Ends, float]:
    """End offsets once no transaction is open on any partition, and how long that took in seconds.

    Raises:
        SystemExit: some transaction stays open; which one was printed as `open`.
    """
    started_s = time.monotonic()
    while True:
        stable, ends = _ends(bootstrap, partitions)
        if ends and stable == ends:
            return stable, time.monotonic() - started_s
        if time.monotonic() - started_s > OPEN_TRANSACTION_TIMEOUT_S:
            say(open=[open_transaction(bootstrap, tp, stable[tp], end) for tp, end in ends.items() if stable[tp] < end])
            raise SystemExit(f"a transaction stayed open for {OPEN_TRANSACTION_TIMEOUT_S:.0f} s: {stable} of {ends}")
        time.sleep(0.3)


def _ends(bootstrap: str, partitions: Sequence[TopicPartition]) -> tuple[Ends, Ends]:
    """Stable and real ends. Nothing while the client does not know yet which term of the leader it should ask for.

    The client is a new one each time: one that has seen a leader's end keeps naming its term.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    try:
        stable = _ends_at(admin, partitions, IsolationLevel.READ_COMMITTED)
        return stable, _ends_at(admin, partitions, IsolationLevel.READ_UNCOMMITTED)
    except KafkaException as error:
        if not error.args[0].retriable() and error.args[0].code() not in LEADER_MOVES:
            raise
        return {}, {}


def _ends_at(admin: AdminClient, partitions: Sequence[TopicPartition], level: Any) -> Ends:
    asked = {TopicPartition(p.topic, p.partition): OffsetSpec.latest() for p in partitions}  # type: ignore[no-untyped-call]  # has no annotations
    found = admin.list_offsets(asked, isolation_level=level)
    return {(tp.topic, tp.partition): future.result().offset for tp, future in found.items()}


def open_transaction(bootstrap: str, tp: tuple[str, int], stable: int, end: int) -> dict[str, Any]:
    """Where readers wait, and the first records behind that place: the first of them is of the open transaction.

    The client has no call for the producers of a partition; who wrote a record is found by its media id in the
    workers' logs.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "verifier-never-commits",
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
            "log_level": 2,
        }
    )
    consumer.assign([TopicPartition(*tp, stable)])
    records = [_facts(m) for m in consumer.consume(OPEN_RECORDS_SHOWN, READ_OPEN_S) if m.error() is None]
    consumer.close()
    return {"topic": tp[0], "partition": tp[1], "stable_end": stable, "end": end, "records": records}


def _facts(message: Message) -> dict[str, Any]:
    headers = {name: _text(value) for name, value in dict(message.headers() or ()).items()}
    at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC).isoformat()
    return {"offset": message.offset(), "written_at": at, "key": _text(message.key()), "headers": headers}


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def stdin_ended() -> bool:
    """True once whoever started us has closed our standard input."""
    return bool(select.select([sys.stdin], [], [], 0)[0]) and sys.stdin.read(1) == ""


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--inputs", type=Path, required=True, help="JSON object: media id -> how often it is sent")
    options = parser.parse_args()
    sent: Counter[str] = Counter(orjson.loads(options.inputs.read_bytes()))
    topics = [f"{options.prefix}.{t}" for t in TOPICS]

    reader, seen = Reader(options.bootstrap, topics, "read_committed"), Answers()
    started_s = told_s = last_s = time.monotonic()
    longest_silence_s = 0.0
    while not stdin_ended():
        for message in reader.poll(0.2):
            now_s = time.monotonic()
            longest_silence_s = max(longest_silence_s, now_s - last_s) if seen.places else 0.0
            last_s = now_s
            seen.add(message)
        if time.monotonic() - told_s >= 1.0:
            told_s = time.monotonic()
            say(t_s=round(told_s - started_s, 1), **progress(seen, sent))
    ends, settling_s = settled_ends(options.bootstrap, reader.partitions)
    for message in reader.until(ends):
        seen.add(message)
    reader.close()

    again = read_again(options.bootstrap, topics, ends, "read_committed")
    # Of all that workers write: a small transaction of the first stages may hold no decision.
    written = [f"{options.prefix}.{t}" for t in (*TOPICS, *HANDED_ON)]
    raw, committed = (count(options.bootstrap, written, f"read_{level}committed") for level in ("un", ""))
    verdict = progress(seen, sent) | {
        "unexpected": sorted(set(seen.by_media) - set(sent))[:20],
        "several_uids": sorted(m for m, uids in seen.uids.items() if len(uids) > 1)[:20],
        "shared_uids": seen.shared_uids()[:20],
        "readings_agree": seen == again,
        "aborted_records": raw - committed,
        "longest_silence_s": round(longest_silence_s, 1),
        "settling_s": round(settling_s, 1),
        "by_topic": seen.by_topic,
        "by_stage": seen.by_stage,
        "reasons": seen.reasons,
        "missing_ids": sorted(seen.missing(sent))[:20],
        "doubled_ids": sorted(seen.doubled(sent))[:20],
    }
    wrong = ("missing", "doubled", "unexpected", "several_uids", "shared_uids")
    verdict["exact"] = verdict["readings_agree"] and not any(verdict[name] for name in wrong)
    say(verdict=verdict)
    return 0 if verdict["exact"] else 1


def progress(seen: Answers, sent: Counter[str]) -> dict[str, int]:
    """The counters of one line."""
    return {
        "sent": sent.total(),
        "answers": seen.by_media.total(),
        "missing": seen.missing(sent).total(),
        "doubled": seen.doubled(sent).total(),
    }


def read_again(bootstrap: str, topics: Sequence[str], ends: Ends, isolation: str) -> Answers:
    """Everything once more, by a consumer that has seen nothing yet."""
    reader, seen = Reader(bootstrap, topics, isolation), Answers()
    for message in reader.until(ends):
        seen.add(message)
    reader.close()
    return seen


def count(bootstrap: str, topics: Sequence[str], isolation: str) -> int:
    """Records of the topics."""
    reader = Reader(bootstrap, topics, isolation)
    found = sum(1 for _ in reader.until(settled_ends(bootstrap, reader.partitions)[0]))
    reader.close()
    return found


def say(**facts: Any) -> None:
    """One line of JSON."""
    sys.stdout.buffer.write(orjson.dumps(facts) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
