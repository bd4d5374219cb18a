"""References of a foreign producer through a whole fleet: decisions, evidence, ids, traces, lag, logs."""

from __future__ import annotations

import json
import re
import urllib.request
from uuid import uuid4

import ocsf_emitter
import orjson
import pytest
from ocsf_emitter import models as oracle

from pipeline.streaming.kafka.admin import TopicAdmin
from schemas.deadletter import RejectCode
from schemas.decision import Decision, Outcome, ReasonCode, Risk
from schemas.envelope import parse_traceparent
from schemas.ocsf import Activity, decision_from_finding, encode_finding, event_uid, finding_from_decision
from schemas.topics import Topic
from schemas.types import StageName
from tests.support.fleet import LIMITED_SOURCE, LiveFleet, command_line
from tests.support.kafka import TIMEOUT_S
from tests.support.mailbox import Decided
from tests.support.waiting import wait_until

PHOTO = "photo-coffee-q95.jpg"
MADE = "made-pixel-shuffle.png"
"""Goes through all three stages."""

READS = {
    StageName.CLASSIFIER: (Topic.INGEST, Topic.RETRY_10S, Topic.RETRY_1M, Topic.RETRY_10M),
    StageName.SPECTRAL: (Topic.SUSPECT, Topic.SUSPECT_PRIORITY),
    StageName.MLLM: (Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY),
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01".encode()


@pytest.fixture(scope="module")
def bare(fleet: LiveFleet) -> Decided:
    """The decision on a record of a `uri` alone, without key or headers."""
    return fleet.decided(fleet.send_raw(orjson.dumps({"uri": fleet.uri(PHOTO)})))


def test_a_bare_record_is_decided_under_the_id_of_its_place(fleet: LiveFleet, bare: Decided) -> None:
    decision = bare.decision
    assert re.fullmatch(rf"kafka-{fleet.prefix}\.media\.ingest-[0-3]-\d+", decision.admission.media_id)
    assert bare.topic is Topic.PASS
    assert (decision.outcome, decision.risk) == (Outcome.PASS, Risk.RELEASED)
    assert decision.stage_exited is StageName.CLASSIFIER
    assert decision.facts is not None
    assert decision.facts.format == "jpeg"
    assert decision.facts.size_bytes == (fleet.media / PHOTO).stat().st_size


def test_a_decision_carries_cloudevents_and_a_trace(bare: Decided) -> None:
    headers = {name: value.decode() for name, value in bare.record.headers}
    admission = bare.decision.admission
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_type"] == Decision.event_type
    assert headers["ce_source"] == "/mediasieve/classifier"
    assert headers["ce_subject"] == f"{admission.tenant}/{admission.media_id}" == (bare.record.key or b"").decode()
    assert headers["ce_dataschema"].endswith("/detection_finding.json")
    assert headers["content-type"] == "application/json"
    assert headers["ce_traceparent"] == headers["traceparent"]
    assert parse_traceparent(headers["traceparent"].encode()) is not None
    assert {"ce_id", "ce_time"} <= headers.keys()


def test_the_command_line_prints_findings_that_ocsf_accepts(fleet: LiveFleet, bare: Decided) -> None:
    done = command_line("decisions", "--json", environment=fleet.environment)
    assert done.returncode == 0, done.stderr
    lines = [line.encode() for line in done.stdout.splitlines()]
    assert bare.record.value in lines
    for line in lines:
        finding = oracle.DetectionFinding.model_validate_json(line)
        ocsf_emitter.validate(finding)
        assert (finding.class_uid, finding.metadata.version) == (2004, "1.5.0")
        assert encode_finding(finding_from_decision(decision_from_finding(line))) == line
    assert decision_from_finding(bare.record.value) == bare.decision


def test_a_trace_goes_through_all_three_stages(fleet: LiveFleet) -> None:
    media_id = uuid4().hex
    value = orjson.dumps({"uri": fleet.uri(MADE), "media_id": media_id})
    fleet.send_raw(value, headers=[("traceparent", TRACEPARENT)])
    decided = fleet.decided(media_id)
    decision = decided.decision
    assert decision.stage_exited is StageName.MLLM
    assert decided.reason == ReasonCode.MLLM_UNCONFIGURED.value
    assert [s.stage for s in decision.scores] == list(StageName)
    assert [t.stage for t in decision.timings] == list(StageName)
    hops = [*fleet.mailbox.handed_on(media_id), decided.record]
    assert {fleet.topics[t] for t in (Topic.SUSPECT_PRIORITY, Topic.ANOMALOUS_PRIORITY)} < {r.tp.topic for r in hops}
    spans = [_span(record.header("traceparent")) for record in hops]
    assert [trace for trace, _ in spans] == [TRACE] * 3
    assert len({span for _, span in spans} | {"00f067aa0ba902b7"}) == 4, "each hop is a span of its own"


def _span(traceparent: bytes | None) -> tuple[str, str]:
    context = parse_traceparent(traceparent)
    assert context is not None
    return context.trace_id, context.span_id


def test_the_same_reference_twice_is_one_decision_uid(fleet: LiveFleet) -> None:
    media_id = fleet.send(fleet.uri(PHOTO))
    fleet.send(fleet.uri(PHOTO), media_id=media_id)
    other = fleet.decided(fleet.send(fleet.uri(PHOTO)))
    wait_until(lambda: len(fleet.mailbox.decisions(media_id)) == 2, TIMEOUT_S, "both decisions")
    twice = fleet.mailbox.decisions(media_id)
    uids = {json.loads(d.record.value)["metadata"]["uid"] for d in twice}
    (uid,) = {d.decision.decision_uid for d in twice}
    assert uids == {str(event_uid(uid, Activity.CREATE, 0))}
    assert other.decision.decision_uid != uid
    assert fleet.mailbox.letters(media_id) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("broken-truncated.jpg", ReasonCode.MEDIA_TRUNCATED),
        ("broken-bomb.png", ReasonCode.MEDIA_TOO_LARGE),
        ("broken-text.png", ReasonCode.MEDIA_UNSUPPORTED),
    ],
)
def test_media_that_cannot_be_analysed_is_escalated_with_its_bytes(
    fleet: LiveFleet, name: str, code: ReasonCode
) -> None:
    decided = fleet.decided(fleet.send(fleet.uri(name)))
    assert decided.topic is Topic.ESCALATE
    assert decided.reason == code.value
    assert decided.decision.final_score is None
    original, _ = decided.decision.evidence
    assert original.kind == "original"


def test_a_type_that_the_bytes_contradict_is_escalated(fleet: LiveFleet) -> None:
    decided = fleet.decided(fleet.send(fleet.uri(PHOTO), content_type="image/png"))
    assert (decided.topic, decided.reason) == (Topic.ESCALATE, ReasonCode.MEDIA_TYPE_MISMATCH.value)


def test_what_expired_is_escalated_and_not_fetched(fleet: LiveFleet) -> None:
    decided = fleet.decided(fleet.send(fleet.uri("no-such-file.jpg"), expires_at="2020-01-01T00:00:00Z"))
    assert (decided.topic, decided.reason) == (Topic.ESCALATE, ReasonCode.EXPIRED.value)
    assert decided.decision.facts is None


def test_what_has_not_expired_is_decided(fleet: LiveFleet) -> None:
    assert fleet.decided(fleet.send(fleet.uri(PHOTO), expires_at="2100-01-01T00:00:00Z")).topic is Topic.PASS


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("no-such-file.jpg", {}, RejectCode.SOURCE_GONE),
        (PHOTO, {"sha256": "0" * 64}, RejectCode.DECLARED_MISMATCH),
        (PHOTO, {"size_bytes": 1}, RejectCode.DECLARED_MISMATCH),
        (PHOTO, {"source": LIMITED_SOURCE, "tenant": "other"}, RejectCode.TENANT_REFUSED),
        ("../outside.jpg", {}, RejectCode.URI_REFUSED),
    ],
)
def test_what_must_not_be_decided_is_a_dead_letter(
    fleet: LiveFleet, name: str, fields: dict[str, object], code: RejectCode
) -> None:
    media_id = fleet.send(fleet.uri(name), **fields)
    dead = fleet.dead(media_id)
    assert dead.letter.code is code
    assert json.loads(dead.record.value)["media_id"] == media_id
    assert dead.letter.source == fields.get("source")


def test_a_limited_producer_may_publish_for_its_own_tenant(fleet: LiveFleet) -> None:
    decided = fleet.decided(fleet.send(fleet.uri(PHOTO), source=LIMITED_SOURCE, tenant="acme"))
    assert decided.decision.admission.tenant == "acme"


def test_the_largest_reference_that_the_schema_allows_is_decided(fleet: LiveFleet) -> None:
    """Labels of characters that JSON escapes sixfold, through all stages: no internal topic may be too small."""
    labels = {f"k{i:02d}".ljust(63, "x"): "\x01" * 256 for i in range(32)}
    uri = fleet.uri(MADE).replace("/media/", "/media/" + "./" * 1900)
    media_id = fleet.send(uri, labels=labels, source="s" * 128, media_id="m" * 96 + uuid4().hex)
    decided = fleet.decided(media_id)
    assert decided.decision.stage_exited is StageName.MLLM
    assert decided.decision.admission.labels == labels


@pytest.mark.parametrize("stage", StageName)
def test_the_lag_of_every_stage_reaches_zero(fleet: LiveFleet, stage: StageName) -> None:
    """Markers of transactions take offsets at the end of every topic, and no record comes after them."""
    fleet.decided(fleet.send(fleet.uri(MADE)))
    admin = TopicAdmin({"bootstrap.servers": fleet.bootstrap})
    names = [fleet.topics[t] for t in READS[stage]]
    assert sum(admin.end_offsets(names).values()) > 0
    group = f"{fleet.prefix}.{stage}"
    wait_until(lambda: not any(admin.group_lag(group, names).values()), TIMEOUT_S, f"{stage} without lag")


@pytest.mark.parametrize("stage", StageName)
def test_a_worker_answers_on_its_health_port(fleet: LiveFleet, stage: StageName) -> None:
    (member,) = [m for m in fleet.fleet.members if m.stage is stage]
    answers = {path: _get(member.port, path) for path in ("/live", "/ready", "/progress", "/metrics")}
    assert json.loads(answers["/live"])["ok"] is True
    assert json.loads(answers["/ready"])["partitions"] == 4 * len(READS[stage])
    assert json.loads(answers["/progress"]).keys() == {"ok", "in_flight", "oldest_in_flight_s"}
    assert b"\nmediasieve_ready 1.0\n" in answers["/metrics"]


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT_S) as answer:
        assert answer.status == 200
        return bytes(answer.read())


def test_a_decision_is_one_line_in_its_worker_s_log(fleet: LiveFleet) -> None:
    media_id = uuid4().hex
    value = orjson.dumps({"uri": fleet.uri(PHOTO), "media_id": media_id})
    partition, offset = fleet.send_raw(value, headers=[("traceparent", TRACEPARENT)]).rsplit("-", 2)[1:]
    decided = fleet.decided(media_id)
    (member,) = [m for m in fleet.fleet.members if m.stage is StageName.CLASSIFIER]

    def lines() -> list[dict[str, object]]:
        written = member.log_path.read_text().rpartition("\n")[0]  # the last line may still be on its way
        found = [json.loads(x) for x in written.splitlines() if media_id in x]
        return [x for x in found if x["event"] == "decision"]

    (line,) = wait_until(lines, TIMEOUT_S, "the decision's log line")
    assert line["trace_id"] == TRACE
    assert (line["topic"], line["partition"], line["offset"]) == (
        fleet.topics[Topic.INGEST],
        int(partition),
        int(offset),
    )
    assert line["decision_uid"] == str(decided.decision.decision_uid)
    assert (line["outcome"], line["worker"]) == ("pass", "classifier")
