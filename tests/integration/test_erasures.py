"""An erasure on a real broker: announced whole, with headers, before a key is gone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.media.errors import ContentMissing
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.decision import Outcome
from schemas.erasure import Erasure, ErasureCause
from schemas.topics import Topic
from schemas.wire import decode
from tests.support.evidence_files import archived, environment, opened, put_at
from tests.support.kafka import read_all
from workers.cli.main import app

LONG_AGO = datetime.now(UTC) - timedelta(days=60)


@pytest.fixture(autouse=True)
def settings(kafka: EmbeddedKafka, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEDIASIEVE_KAFKA__BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("MEDIASIEVE_KAFKA__TOPIC_PREFIX", prefix)


def test_retention_and_request_are_both_on_the_topic(
    kafka: EmbeddedKafka, topics: dict[Topic, str], tmp_path: Path
) -> None:
    due = archived(opened(), "m1", LONG_AGO, b"due", outcome=Outcome.PASS)
    asked = archived(opened(), "m2", LONG_AGO, b"asked for")
    put_at(tmp_path, LONG_AGO)

    applied = CliRunner().invoke(app, ["retention", "apply", "--json"])
    assert applied.exit_code == 0, applied.exception
    request = ["erase", "--tenant", "acme", "--media-id", "m2", "--actor", "dpo", "--reason", "request 1", "--json"]
    erased = CliRunner().invoke(app, request)
    assert erased.exit_code == 0, erased.exception

    messages = read_all(kafka.bootstrap, [topics[Topic.ERASURES]], 2)
    found = {e.media_id: e for m in messages if (e := decode(Erasure, m.value() or b""))}
    assert found["m1"].cause is ErasureCause.RETENTION
    assert (found["m2"].cause, found["m2"].actor, found["m2"].detail) == (ErasureCause.REQUEST, "dpo", "request 1")
    said = [json.loads(line) for line in (*applied.stdout.splitlines(), *erased.stdout.splitlines())]
    for row, (media_id, made) in zip(said, (("m1", due), ("m2", asked)), strict=True):
        assert row["erasure_id"] == str(found[media_id].erasure_id)
        assert row["sha256s"] == sorted(found[media_id].sha256s)
        with pytest.raises(ContentMissing):
            opened().store.get("acme", made.evidence[0].sha256)
    headers = dict(next(m.headers() or [] for m in messages if m.key() == b"acme/m2"))
    assert headers["ce_type"] == Erasure.event_type.encode()
    assert headers["ce_id"] == str(found["m2"].erasure_id).encode()
    assert headers["ce_dataschema"].endswith(b"/erasure.json")
