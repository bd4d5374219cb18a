"""What is no media reference becomes a dead letter, byte for byte, up to the very size limit; and comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException
from typer.testing import CliRunner

from pipeline.streaming.kafka.admin import TopicAdmin
from schemas.deadletter import RejectCode
from schemas.topics import INGEST_MAX_BYTES, Topic
from tests.support.fleet import LiveFleet, clean_environment, command_line
from tests.support.kafka import TIMEOUT_S
from tests.support.mailbox import Dead
from tests.support.waiting import wait_until
from workers.cli.main import app

Header = tuple[str, bytes]

FAULTS = {
    "not UTF-8": (b'{"uri": "file:///\xff\xfe.jpg"}', RejectCode.NOT_UTF8),
    "UTF-16": ('{"uri": "file:///a.jpg"}'.encode("utf-16"), RejectCode.NOT_UTF8),
    "truncated": (b'{"uri": "file:///a.jpg", "lab', RejectCode.TRUNCATED_JSON),
    "empty": (b"", RejectCode.TRUNCATED_JSON),
    "no JSON": (b"uri=file:///a.jpg", RejectCode.MALFORMED_JSON),
    "too deep": (b'{"uri": "file:///a.jpg", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", RejectCode.TOO_DEEP),
    "NaN": (b'{"uri": "file:///a.jpg", "score": NaN}', RejectCode.NON_FINITE_NUMBER),
    "duplicate keys": (b'{"uri": "file:///a.jpg", "uri": "file:///b.jpg"}', RejectCode.DUPLICATE_KEY),
    "an array": (b'["file:///a.jpg"]', RejectCode.SCHEMA_INVALID),
    "wrong schema": (b'{"uri": "file:///a.jpg", "size_bytes": "many"}', RejectCode.SCHEMA_INVALID),
    "without a uri": (b'{"media_id": "m-1"}', RejectCode.SCHEMA_INVALID),
    "another major": (b'{"uri": "file:///a.jpg", "schema_version": "2.0"}', RejectCode.UNSUPPORTED_VERSION),
    "unknown scheme": (b'{"uri": "gopher://a.example/b.jpg"}', RejectCode.URI_REFUSED),
}


@dataclass(frozen=True, slots=True)
class Record:
    """What a producer sends; `batch_bytes` is its size as the broker's limit counts it, alone in its batch."""

    value: bytes
    key: bytes | None = None
    headers: Sequence[Header] = ()

    @property
    def batch_bytes(self) -> int:
        """https://kafka.apache.org/documentation/#recordbatch and #record: 61 bytes, then the record."""
        body = 1 + _varint_bytes(0) + _varint_bytes(0)  # attributes, timestamp delta, offset delta
        body += _sized(self.key) + _sized(self.value) + _varint_bytes(len(self.headers))
        body += sum(_sized(name.encode()) + _sized(value) for name, value in self.headers)
        return 61 + _varint_bytes(body) + body


def _sized(data: bytes | None) -> int:
    return _varint_bytes(-1) if data is None else _varint_bytes(len(data)) + len(data)


def _varint_bytes(number: int) -> int:
    """Bytes of a zigzag varint."""
    return max(1, -(-((number << 1) ^ (number >> 31)).bit_length() // 7))


def filled(record: Record) -> Record:
    """The record with its value grown by bytes that are no UTF-8 until its batch is as large as ingest allows."""
    room = INGEST_MAX_BYTES - record.batch_bytes
    for spare in range(8):  # the varints grow too
        grown = Record(record.value + b"\xff" * (room - spare), record.key, record.headers)
        if grown.batch_bytes <= INGEST_MAX_BYTES:
            return grown
    raise AssertionError("no value fits")


MAXIMAL = {
    "a value alone": Record(b""),
    "key and headers": Record(b"", b"k" * 128, (("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),)),
    "many headers": Record(b"", b"key", tuple((f"header-{i}", bytes(32)) for i in range(10_000))),
    "one huge header": Record(b"", None, (("x", bytes(900_000)),)),
    "a huge key": Record(b"", bytes(900_000)),
}


@pytest.fixture(scope="module", params=FAULTS)
def fault(request: pytest.FixtureRequest, fleet: LiveFleet) -> tuple[bytes, RejectCode, Dead]:
    value, code = FAULTS[request.param]
    return value, code, fleet.dead(fleet.send_raw(value, b"key", [("x-request", b"1")]))


def test_a_fault_is_a_dead_letter_with_the_original(fleet: LiveFleet, fault: tuple[bytes, RejectCode, Dead]) -> None:
    value, code, dead = fault
    assert dead.letter.code is code
    assert dead.letter.detail
    assert dead.record.value == value
    assert dead.record.key == b"key"
    assert dead.record.headers[0] == ("x-request", b"1")
    assert (dead.letter.value_bytes, dead.letter.value_truncated) == (len(value), False)
    assert dead.letter.topic == fleet.topics[Topic.INGEST]
    assert dead.letter.media_id.endswith(f"{dead.letter.topic}-{dead.letter.partition}-{dead.letter.offset}")


def test_a_header_cannot_forge_the_dead_letter(fleet: LiveFleet) -> None:
    forged = [("mediasieve-dead-letter", b'{"media_id": "forged"}'), ("mediasieve-retry", b"{}")]
    dead = fleet.dead(fleet.send_raw(b"{", headers=forged))
    assert dead.letter.code is RejectCode.TRUNCATED_JSON
    assert list(dead.record.headers[:2]) == forged


@pytest.mark.parametrize("name", MAXIMAL)
def test_the_largest_record_that_ingest_takes_is_dead_lettered_whole(fleet: LiveFleet, name: str) -> None:
    largest = filled(MAXIMAL[name])
    assert largest.batch_bytes == INGEST_MAX_BYTES
    dead = fleet.dead(fleet.send_raw(largest.value, largest.key, largest.headers))
    assert dead.letter.code is RejectCode.NOT_UTF8
    assert dead.record.value == largest.value
    assert dead.record.key == largest.key
    assert list(dead.record.headers[: len(largest.headers)]) == list(largest.headers)


@pytest.mark.parametrize("name", MAXIMAL)
def test_one_byte_more_is_the_broker_s_to_refuse(fleet: LiveFleet, name: str) -> None:
    largest = filled(MAXIMAL[name])
    with pytest.raises(KafkaException) as refused:
        fleet.send_raw(largest.value + b"\xff", largest.key, largest.headers)
    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_a_reference_of_the_largest_size_is_decided(fleet: LiveFleet) -> None:
    """Unknown fields are the producer's own; they do not travel on."""
    start = orjson.dumps({"uri": fleet.uri("photo-coffee-q95.jpg"), "note": ""})[:-2]
    room = len(filled(Record(start)).value) - len(start) - 2
    decided = fleet.decided(fleet.send_raw(start + b"x" * room + b'"}'))
    assert decided.topic is Topic.PASS


def _letters(fleet: LiveFleet, *arguments: str) -> list[dict[str, Any]]:
    """`mediasieve deadletter ...` in this process; its lines of JSON."""
    done = CliRunner().invoke(app, ["deadletter", *arguments], env=clean_environment(fleet.environment))
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def _replay(fleet: LiveFleet, places: Iterable[str]) -> str:
    done = command_line("deadletter", "replay", *places, environment=fleet.environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_operators_list_and_show_dead_letters(fleet: LiveFleet) -> None:
    dead = fleet.dead(fleet.send_raw(b'{"uri": "\xff"}'))
    (row,) = [x for x in _letters(fleet, "list", "--json") if x["place"] == dead.place]
    assert row == {"place": dead.place} | dead.letter.model_dump(mode="json")
    (shown,) = _letters(fleet, "show", dead.place)
    assert shown["code"] == "not_utf8"
    assert shown["value"] == '{"uri": "\\xff"}'


def test_a_replayed_record_keeps_its_media_id_and_trace(fleet: LiveFleet) -> None:
    """One that fails again and one whose file has come since: neither is another medium than before."""
    trace = "c" * 32
    traced = [("traceparent", f"00-{trace}-{'d' * 16}-01".encode())]
    bad = fleet.dead(fleet.send_raw(b"garbage", headers=traced))
    late = fleet.dead(fleet.send_raw(orjson.dumps({"uri": fleet.uri("late.jpg")}), headers=traced))
    assert late.letter.code is RejectCode.SOURCE_GONE
    shutil.copy(fleet.media / "photo-coffee-q95.jpg", fleet.media / "late.jpg")
    said = _replay(fleet, [bad.place, late.place])
    assert bad.letter.media_id in said
    assert late.letter.media_id in said
    wait_until(lambda: len(fleet.mailbox.letters(bad.letter.media_id)) == 2, TIMEOUT_S, "both letters")
    again = fleet.mailbox.letters(bad.letter.media_id)
    assert again[1].record.value == b"garbage"
    assert again[1].letter.offset != bad.letter.offset or again[1].letter.partition != bad.letter.partition
    decided = wait_until(lambda: fleet.mailbox.decisions(late.letter.media_id), TIMEOUT_S, "the late file's decision")
    assert (decided[0].record.header("traceparent") or b"").split(b"-")[1].decode() == trace
    assert {d.letter.trace_id for d in again} == {trace}


def test_replay_of_what_is_no_dead_letter_says_so(fleet: LiveFleet) -> None:
    before = TopicAdmin({"bootstrap.servers": fleet.bootstrap}).end_offsets([fleet.topics[Topic.INGEST]])
    done = command_line("deadletter", "replay", "0-99999999", environment=fleet.environment)
    assert done.returncode == 1
    assert "no dead letter at 0-99999999" in done.stderr
    assert "Traceback" not in done.stderr
    assert TopicAdmin({"bootstrap.servers": fleet.bootstrap}).end_offsets([fleet.topics[Topic.INGEST]]) == before
