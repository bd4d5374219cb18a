"""What `mediasieve bench` prints; how fast anything is, is no test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.detection.spectral import kernel
from pipeline.evaluation.power_law import coloured, power_law
from pipeline.media.encode import encode
from workers import mllm_bench, spectral_bench
from workers.cli.bench import app


def test_every_input_and_step_has_a_row_with_both_ratios() -> None:
    result = CliRunner().invoke(app, ["spectral", "--size", "128", "--rounds", "1", "--processes", "0", "--json"])

    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    steps = ("seed", "naive", "kernel", "features")
    assert [(row["input"], row["step"]) for row in rows] == [
        *(("luma", step) for step in steps),
        *((source, step) for source in ("png", "jpeg") for step in (*steps, "decode")),
    ]
    for row in rows:
        assert row["size_px"] == 128
        assert row["rounds"] == 1
        assert row["median_ms"] > 0
        assert row["per_seed"] > 0
        assert row["per_naive"] > 0
    naive = [row["per_naive"] for row in rows if row["step"] == "naive"]
    assert naive == [1.0, 1.0, 1.0]


def test_people_get_a_table() -> None:
    result = CliRunner().invoke(app, ["spectral", "--size", "128", "--rounds", "1", "--processes", "0"])

    assert result.exit_code == 0, result.output
    assert "per_naive" in result.output
    assert "features" in result.output


def test_both_codes_see_the_same_spectrum() -> None:
    """The plain code's radial means fall along the same curve, so that both do the same job."""
    luma = power_law(256, 256)

    radial, angular = spectral_bench.naive_profiles(luma)
    ours = spectral_bench.kernel_profiles(luma).radial

    # The radius of 256 px comes in steps of 1/256 cycles/px, that of the annuli in 1/128.
    pairs = radial[: 2 * kernel.RADIAL_BINS].reshape(-1, 2).mean(axis=1)
    assert np.corrcoef(pairs[2:], 0.5 * np.log(ours)[2:])[0, 1] > 0.99
    assert angular.size == 181


@pytest.mark.parametrize("step", ["seed", "naive", "kernel", "features", "decode"])
@pytest.mark.parametrize("name", ["png", "jpeg"])
def test_bytes_reach_every_step(step: str, name: str) -> None:
    codec, quality = spectral_bench.FORMATS[name]
    data = encode(coloured(power_law(128, 128)), codec, quality)

    assert spectral_bench.from_bytes(step, data) is not None


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the call in place of `steady_allocator`, which nothing takes back and which would slow later tests."""
    calls: list[str] = []
    monkeypatch.setattr(mllm_bench, "steady_allocator", lambda: calls.append("steady"))
    return calls


MLLM = ["mllm", "--images", "6", "--concurrency", "2", "--latency-ms", "5", "--size", "160"]


@pytest.mark.parametrize("passes", [1, 2])
def test_the_mllm_stage_is_measured_against_what_its_server_allows(passes: int, allocator: list[str]) -> None:
    result = CliRunner().invoke(app, [*MLLM, "--passes", str(passes), "--json"])

    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout.splitlines()[-1])
    assert row["images"] == 6
    assert row["ideal_per_s"] == pytest.approx(2 / (0.005 * passes))
    assert row["per_s"] > 0
    assert row["cpu_ms"] > 0
    assert row["peak_rss_mib"] > 0
    assert allocator == ["steady"], "memory is measured as the worker has it"


@pytest.mark.usefixtures("allocator")
def test_an_item_that_the_report_does_not_decide_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllm_bench, "_SCORE", 0.5)

    result = CliRunner().invoke(app, MLLM)

    assert result.exit_code == 1
    assert "was not decided by the report" in result.output


def test_the_audit_logs_figures_grow_as_they_should(tmp_path: Path) -> None:
    """Reads and hashes of a proof are counted, not timed: 256 times the leaves are 8 more hashes, one more read."""
    sizes = ["--leaves", "4", "--leaves", "1024", "--batch", "500", "--directory", str(tmp_path)]
    result = CliRunner().invoke(app, ["audit-log", *sizes, "--json"])
    assert result.exit_code == 0, result.output
    small, large = (json.loads(line) for line in result.stdout.splitlines())
    assert (small["leaves"], small["proof_hashes"], small["consistency_hashes"]) == (4, 2, 3)
    assert (large["leaves"], large["proof_hashes"], large["consistency_hashes"]) == (1024, 10, 11)
    assert (small["proof_reads"], large["proof_reads"]) == (3, 4)
    assert small["tree_bytes"] == 4 * 32
    assert large["tree_bytes"] == 1024 * 32 + (1 + 3 + 4) * 32  # the tile above, as it was after each append
    assert large["entry_bytes"] > 1024 * large["leaf_bytes"]
    assert list(tmp_path.iterdir()) == []


def test_the_audit_logs_table_has_a_column_for_each_size() -> None:
    result = CliRunner().invoke(app, ["audit-log", "--leaves", "1", "--leaves", "300"])
    assert result.exit_code == 0, result.output
    assert "proof_hashes" in result.stdout
    assert result.stdout.index("300") < result.stdout.index("append_s")
