"""`mediasieve explain --kafka`: a decision, its review and an erasure as they lie on the topics."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.erasure import Erasure, ErasureCause
from schemas.topics import Topic
from schemas.wire import encode
from tests.support.explaining import TENANT, Case, finding, review
from tests.support.kafka import produce
from workers.cli.main import app

pytestmark = pytest.mark.kafka


def test_a_released_pass_is_told_from_the_topics(
    kafka: EmbeddedKafka, prefix: str, topics: dict[Topic, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIASIEVE_KAFKA__TOPIC_PREFIX", prefix)
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", (tmp_path / "store").as_uri())
    decision, other = Case().released(), Case(media_id="img-2").released()
    erasure = Erasure(
        erasure_id=UUID(int=1),
        tenant=TENANT,
        media_id="img-1",
        sha256s=("0" * 64,),
        cause=ErasureCause.REQUEST,
        actor="dpo",
        detail="",
        erased_at=datetime(2026, 3, 1, tzinfo=UTC),
    )
    produce(kafka.bootstrap, topics[Topic.PASS], [finding(other), finding(decision)], 2)
    produce(kafka.bootstrap, topics[Topic.REVIEWS], [encode(review(decision))], 1)
    produce(kafka.bootstrap, topics[Topic.ERASURES], [encode(erasure)])
    common = ["--kafka", "--bootstrap", kafka.bootstrap, "--json"]
    by_uid = CliRunner().invoke(app, ["explain", str(decision.decision_uid), *common])
    by_media = CliRunner().invoke(app, ["explain", "--tenant", TENANT, "--media-id", "img-1", *common])
    assert (by_uid.exit_code, by_media.exit_code) == (0, 0), by_uid.output + by_media.output
    story = json.loads(by_uid.stdout)
    assert story == json.loads(by_media.stdout)
    assert [event["place"] for event in story["events"]] == ["decisions.pass[2]@1"]
    assert [r["reviewer"] for r in story["reviews"]] == ["ana"]
    assert [e["actor"] for e in story["erasures"]] == ["dpo"]
