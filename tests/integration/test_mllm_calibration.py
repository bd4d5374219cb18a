"""`bundle calibrate --stage mllm` and `bench grounding` against a server that looks at the pictures it is sent."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.verdict import Basis, MllmCalibration
from pipeline.settings import SettingsInvalid
from tests.support.mllm import plain_report, tokens_of
from tests.support.mllm_fault_server import MODEL, Exchange, FaultServer, completion, running
from tests.support.tiny_bundle import make_dataset, make_tiny_bundle
from workers.cli.bench import app as bench_app
from workers.cli.bundle import app as bundle_app

BRIGHT = 120.0
"""Of the tiny dataset: its generated images are bright, its photographs dark."""


def pictures(body: dict[str, Any]) -> list[bytes]:
    parts = [part for m in body["messages"] if isinstance(m["content"], list) for part in m["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def by_brightness(exchange: Exchange) -> None:
    """A report by the first picture, right in five of six cases, and never twice the same probability."""
    if exchange.pass_name == "reason":
        exchange.reply(200, completion(" of the grid."))
        return
    first = pictures(exchange.body)[0]
    digest = hashlib.sha256(first).digest()
    bright = float(np.asarray(Image.open(io.BytesIO(first))).mean()) > BRIGHT
    synthetic = bright if digest[0] % 6 else not bright
    p = 0.6 + 0.3 * digest[1] / 255.0
    report = plain_report("gan" if synthetic else "authentic", p, observations=[])
    text = json.dumps(report)
    shares = {"gan": p, "aut": 1.0 - p} if synthetic else {"aut": p, "gan": 1.0 - p}
    exchange.reply(200, completion(text, tokens=tokens_of(text, shares)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    script = FaultServer(act=by_brightness)
    with running(script) as port:
        openai = {"base_url": f"http://127.0.0.1:{port}/v1", "model": MODEL, "timeout_s": 60}
        monkeypatch.setenv("MEDIASIEVE_MLLM__BACKEND", "openai")
        monkeypatch.setenv("MEDIASIEVE_MLLM__OPENAI", json.dumps(openai))
        yield script


def test_a_model_that_is_mostly_right_is_calibrated_for_just_itself(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.evaluation.mllm_weight.MIN_PER_CLASS", 10)  # fifty would take minutes
    directory = make_tiny_bundle(tmp_path / "bundle")
    data = make_dataset(tmp_path / "data", images=10)
    result = CliRunner().invoke(
        bundle_app, ["calibrate", str(directory), str(data), "--stage", "mllm", "--every-image"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert f"20 answers of {MODEL}, 2 passes, basis tokens" in result.output
    assert "left out: 1 (cannot be decoded" in result.output
    bundle = Bundle.load(directory)
    calibration = MllmCalibration.of(bundle)
    assert calibration is not None
    assert (calibration.model, calibration.basis) == (MODEL, Basis.TOKENS)
    assert calibration.map.probability(2.0) > 0.5 > calibration.map.probability(-2.0)
    assert bundle.policy.version in result.output
    asked = [body for body in server.asked if "response_format" in body]
    assert len(asked) == 20


def test_grounding_shows_that_it_looks_at_the_picture_alone(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIASIEVE_BUNDLE", str(make_tiny_bundle(tmp_path / "bundle")))
    data = make_dataset(tmp_path / "data", images=3)
    result = CliRunner().invoke(
        bench_app, ["grounding", str(data), "--per-class", "2", "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert [swap["name"] for swap in found["swaps"]] == ["panel", "table", "panel and table"]
    assert all(swap["pairs"] == 4 and swap["mean_shift"] == 0.0 for swap in found["swaps"])
    assert found["saturation"]["verdicts"] == 4
    assert found["silent"] == 0
    panels = {hashlib.sha256(pictures(body)[1]).hexdigest() for body in server.asked}
    assert len(panels) == 4
    assert len(server.asked) == 2 * 4 * 4


def test_without_a_model_there_is_nothing_to_measure(tmp_path: Path) -> None:
    result = CliRunner().invoke(bench_app, ["grounding", str(tmp_path)])
    assert isinstance(result.exception, SettingsInvalid)
    assert "docs/mllm.md" in str(result.exception)
