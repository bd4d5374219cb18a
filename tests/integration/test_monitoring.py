"""Samples, shadow, replay, drift and the weekly run on a real Kafka, through the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from pipeline.detection.bundle import seal
from pipeline.detection.policy import DEFAULT_THRESHOLDS, Policy
from pipeline.evaluation.monitoring.recorded import Recorded, RecordUnreadable, Window
from pipeline.media.content_store import ContentStore
from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.transport import OutRecord
from schemas.decision import Decision, Outcome, Risk
from schemas.ocsf import encode_finding, finding_from_decision, finding_from_review
from schemas.quality import QualityEvent
from schemas.review import Label
from schemas.shadow import AuditSample, ShadowResult
from schemas.topics import DECISION_TOPICS, Topic
from schemas.types import StageName
from schemas.wire import decode, encode
from tests.support.fleet import clean_environment, running_fleet
from tests.support.kafka import create_topics, delete_topics, read_all
from tests.support.monitoring import decided, released, reviewed, sampled
from tests.support.tiny_bundle import make_dataset, make_tiny_bundle
from workers.cli.findings import EXIT_FOUND
from workers.cli.main import app
from workers.demo_media import make_demo_media

pytestmark = pytest.mark.kafka

NOW = datetime.now(UTC)
RECENT, LONG_AGO = NOW - timedelta(days=2), NOW - timedelta(days=20)


class Deployment:
    """Topics of one test, and the command line against them."""

    def __init__(self, bootstrap: str, prefix: str, topics: dict[Topic, str]) -> None:
        self.bootstrap, self.prefix, self.topics = bootstrap, prefix, topics
        self.environment = {"MEDIASIEVE_KAFKA__BOOTSTRAP": bootstrap, "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix}

    @property
    def recorded(self) -> Recorded:
        return Recorded(KafkaSettings(bootstrap=self.bootstrap, topic_prefix=self.prefix))

    def publish(self, *decisions: Decision) -> None:
        for outcome, topic in DECISION_TOPICS.items():
            self.write(topic, *(encode_finding(finding_from_decision(d)) for d in decisions if d.outcome is outcome))

    def write(self, topic: Topic, *values: bytes) -> None:
        writer = RecordWriter(KafkaSettings(bootstrap=self.bootstrap))
        for value in values:
            writer.write(OutRecord(self.topics[topic], None, value, ()))
        writer.flush()

    def run(self, *arguments: str) -> tuple[int, Any]:
        done = CliRunner().invoke(app, [*arguments, "--json"], env=clean_environment(self.environment))
        assert isinstance(done.exception, SystemExit | None), done.exception
        return done.exit_code, json.loads(done.stdout)


@contextmanager
def deployed(kafka: EmbeddedKafka) -> Iterator[Deployment]:
    prefix = f"m{uuid4().hex[:12]}"
    topics = create_topics(kafka.bootstrap, prefix)
    try:
        yield Deployment(kafka.bootstrap, prefix, topics)
    finally:
        delete_topics(kafka.bootstrap, list(topics.values()))


@pytest.fixture
def deployment(kafka: EmbeddedKafka) -> Iterator[Deployment]:
    with deployed(kafka) as found:
        yield found


def test_reports_read_each_decision_once_and_no_review_as_one(deployment: Deployment, tmp_path: Path) -> None:
    held = decided("held", Outcome.ESCALATE, 0.7, 0.7, 0.9, at=RECENT)
    twice = [decided("twice", outcome, 0.9, 0.9, 0.9, at=RECENT) for outcome in (Outcome.ESCALATE, Outcome.BLOCK)]
    passes = [released(f"r{n}", 0.1 if n else 0.25, at=RECENT) for n in range(10)]
    deployment.publish(held, *twice, *passes, released("old", at=LONG_AGO))
    review = reviewed(held, Label.PHOTOGRAPH, NOW)
    update = encode_finding(finding_from_review(held, review, 1))
    deployment.write(Topic.PASS, update)
    deployment.write(Topic.REVIEWS, encode(review))
    sample = sampled("r0", Outcome.PASS, 0.25, 0.3, probability=0.5, at=RECENT)
    deployment.write(Topic.AUDIT_SAMPLES, encode(sample), encode(sample))

    window = Window(NOW - timedelta(days=7), NOW + timedelta(minutes=1))
    found = list(deployment.recorded.decisions(window))
    assert len(found) == 12
    assert {d.outcome for d in found if d.admission.media_id == "twice"} == {Outcome.BLOCK}

    code, report = deployment.run("audit-sample", "report", "--since", "7d", "--until", "0m")
    assert (code, report["released"], report["sampled"]) == (0, 10, 1)
    assert (report["flagged_generated"], report["flagged_unlabelled"]) == (1, 0), "the review said photograph"

    policy = tmp_path / "policy.json"
    lower = Policy(version="lower", thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t1": 0.2}))
    policy.write_text(lower.model_dump_json(), encoding="utf-8")
    code, report = deployment.run("replay", "--from", "7d", "--policy", str(policy))
    assert (code, report["total"], report["unknown"]) == (0, 12, 0), "the sample tells what the pass could not"
    assert {"live": "pass.released", "other": "pass.low_risk", "count": 1} in report["cells"]


def test_a_record_that_cannot_be_read_is_named_not_skipped(deployment: Deployment) -> None:
    deployment.write(Topic.AUDIT_SAMPLES, b"{}")
    with pytest.raises(RecordUnreadable, match=r"audit\.samples\[\d\]@0: .*probability"):
        list(deployment.recorded.samples(Window(LONG_AGO, NOW)))


def test_drift_names_the_source_and_announces_it(deployment: Deployment, tmp_path: Path) -> None:
    before = [released(f"a{n}", (n % 50) / 200, at=LONG_AGO, source="upload") for n in range(120)]
    after = [
        released(f"b{n}", (n % 50) / 200, at=RECENT, source="upload", quality=60 if n % 2 else 90) for n in range(120)
    ]
    deployment.publish(*before, *after)
    metrics = tmp_path / "drift.prom"
    spans = ("--since", "7d", "--reference", "28d", "--until", "0m")
    code, report = deployment.run("drift", "report", *spans, "--announce", "--prometheus", str(metrics))
    assert code == EXIT_FOUND
    assert {(c["source"], c["what"]) for c in report["changes"] if c["flagged"]} == {
        ("upload", "codec mix"),
        ("upload", "strata mix"),
    }
    (message,) = read_all(deployment.bootstrap, [deployment.topics[Topic.QUALITY]], 1)
    event = decode(QualityEvent, message.value() or b"")
    assert {f.subject for f in event.unmapped.findings} == {"upload"}
    assert 'mediasieve_drift_flagged{source="upload",what="codec mix"} 1.0' in metrics.read_text(encoding="utf-8")


def test_the_weekly_run_compares_with_the_last_one_and_fails_on_a_regression(
    deployment: Deployment, tmp_path: Path
) -> None:
    data, bundle, home = make_dataset(tmp_path / "set", 20), make_tiny_bundle(tmp_path / "tiny"), tmp_path / "weekly"
    blind = Policy(version="blind", thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t2": 1.0}))
    (bundle / "policy.json").write_text(blind.model_dump_json(), encoding="utf-8")
    seal(bundle)
    sets = tmp_path / "weekly.toml"
    sets.write_text(f'[[sets]]\nname = "frozen"\npath = "{data}"\n', encoding="utf-8")
    arguments = ("evaluate", "--suite", "weekly", "--sets", str(sets), "--bundle", str(bundle), "--out", str(home))
    code, report = deployment.run(*arguments, "--processes", "1")
    assert (code, report["new_sets"], report["comparisons"]) == (0, ["frozen"], [])
    assert report["notes"][0] == "confirmed: 0 cases"
    (today,) = home.iterdir()

    last = home / "2000-01-01"
    today.rename(last)
    rows = last / "frozen" / "scores.jsonl"
    flawless = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    changed = [json.dumps(row | {"fused": float(row["synthetic"]), "status": "scored"}) for row in flawless]
    rows.write_text("\n".join(changed) + "\n", encoding="utf-8")
    code, report = deployment.run(*arguments, "--processes", "1")
    assert (code, report["compared_with"], report["compared_bundle"]) == (EXIT_FOUND, "2000-01-01", "tiny")
    regressed = {c["measure"]: (c["before"], c["after"]) for c in report["comparisons"] if c["regressed"]}
    assert regressed["fnr"] == (0.0, 1.0)
    (message,) = read_all(deployment.bootstrap, [deployment.topics[Topic.QUALITY]], 1)
    findings = decode(QualityEvent, message.value() or b"").unmapped.findings
    assert {f.measure for f in findings} == set(regressed)


def test_confirmed_cases_are_scored_from_the_kept_bytes_and_compared_with_then(
    deployment: Deployment, tmp_path: Path
) -> None:
    data, bundle = make_dataset(tmp_path / "set", 4), make_tiny_bundle(tmp_path / "tiny")
    url = (tmp_path / "store").as_uri()
    deployment.environment["MEDIASIEVE_STORE__URL"] = url
    store = ContentStore(url)
    for path in sorted([*data.glob("ai*.png"), *data.glob("real*.png")]):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        store.put("acme", digest, path.read_bytes())
        case = decided(
            path.stem,
            Outcome.ESCALATE,
            *(0.7, 0.8, 0.9),
            at=LONG_AGO,
            sha256=digest,
            bundle="tiny",
            reference="spectral.npz",
        )
        deployment.publish(case)
        label = Label.GENERATED if path.stem.startswith("ai") else Label.PHOTOGRAPH
        deployment.write(Topic.REVIEWS, encode(reviewed(case, label, RECENT)))
    sets = tmp_path / "weekly.toml"
    sets.write_text("confirmed_days = 7\n", encoding="utf-8")
    arguments = ("--sets", str(sets), "--bundle", str(bundle), "--out", str(tmp_path / "runs"), "--processes", "1")
    for _ in range(2):  # the second time on the same day
        _, report = deployment.run("evaluate", "--suite", "weekly", *arguments)
        (confirmed,) = report["sets"]
        assert (confirmed["name"], confirmed["fnr"]["total"], confirmed["fpr"]["total"]) == ("confirmed", 4, 4)
        assert report["notes"][0] == "confirmed: 8 cases"
        auc = next(c for c in report["comparisons"] if c["measure"] == "auc")
        assert (auc["name"], auc["before"], auc["images"]) == ("confirmed", 0.5, 8), "all had the same scores then"
        assert auc["after"] == confirmed["auc"]


def test_sampled_passes_and_the_shadow_go_through_a_fleet_and_decide_nothing(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    make_demo_media(tmp_path / "media")
    policy = tmp_path / "shadow.json"
    watching = Policy(version="watching", thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t1": 0.0}))
    policy.write_text(watching.model_dump_json(), encoding="utf-8")
    settings = {
        "MEDIASIEVE_CLASSIFIER__AUDIT_SAMPLE__SHARE": "1",
        "MEDIASIEVE_SHADOW__POLICY": str(policy),
    }
    with running_fleet(kafka, tmp_path, dict.fromkeys(StageName, 1), settings) as fleet:
        media_id = fleet.send(fleet.uri("photo-coffee-q95.jpg"))
        passed = fleet.decided(media_id)
        assert passed.decision.risk is Risk.RELEASED
        (message,) = read_all(kafka.bootstrap, [fleet.topics[Topic.AUDIT_SAMPLES]], 1)
        sample = decode(AuditSample, message.value() or b"")
        assert sample.probability == 1.0
        assert sample.admission == passed.decision.admission
        assert sample.decision.stage_exited is not StageName.CLASSIFIER
        (message,) = read_all(kafka.bootstrap, [fleet.topics[Topic.SHADOW_RESULTS]], 1)
        result = decode(ShadowResult, message.value() or b"")
        assert (result.outcome, result.shadow_outcome, result.shadow_stage) == (Outcome.PASS, None, StageName.SPECTRAL)
        # Whatever a stage made of the sample was visible with the sample: one transaction, one decision.
        topics = [fleet.topics[t] for t in DECISION_TOPICS.values()]
        recorded = Recorded(KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=fleet.prefix))
        everything = Window(passed.decision.admission.admitted_at, NOW + timedelta(days=1))
        assert [d.admission.media_id for d in recorded.decisions(everything)] == [media_id]
        assert len(read_all(kafka.bootstrap, topics, 1)) == 1
