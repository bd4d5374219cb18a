"""From where stage 3 can block and clear, and `mediasieve policy verify`, which refuses a useless policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.detection.bundle import DEFAULT_BUNDLE
from pipeline.detection.calibration import Calibration, logit, sigmoid
from pipeline.detection.policy import DEFAULT_THRESHOLDS, Fusion, FusionWeights, Policy, PolicyError
from pipeline.detection.reach import reach
from schemas.decision import Mode, Outcome
from workers.cli.policy import app

DESIGN = DEFAULT_THRESHOLDS.model_copy(update={"t1": 0.0})


def policy(mode: Mode = Mode.FUSED, fusion: Fusion | None = None, **thresholds: float) -> Policy:
    return Policy(
        version="test",
        mode=mode,
        thresholds={**DESIGN.model_dump(), **thresholds},  # type: ignore[arg-type]  # validated
        fusion=fusion or Fusion(),
    )


def test_the_design_clears_from_below_and_blocks_from_above() -> None:
    found = reach(policy())
    assert found.shift == (-1.75, 1.0)
    assert found.arriving.low == 0.55
    assert found.clear is not None
    assert (found.clear.low, found.clear.high) == (0.55, pytest.approx(sigmoid(logit(0.2) + 1.75)))
    assert found.block is not None
    assert (found.block.low, found.block.high) == (0.6, 1.0)
    assert list(found.faults()) == []


def test_a_symmetric_bound_would_clear_nothing() -> None:
    """The reason for -1.75: with -1.0 the 0.55 that arrives at least stays above `t3_clear`."""
    found = reach(policy(fusion=Fusion(mllm_clip=(-1.0, 1.0))))
    assert found.clear is None
    (fault,) = found.faults()
    assert "nothing can be cleared" in fault


def test_a_low_bar_lets_the_mllm_block_all_that_arrives() -> None:
    found = reach(policy(p12_block=0.5, t3_block=0.7))
    (fault,) = found.faults()
    assert "p12_block" in fault


def test_a_small_weight_reaches_less_than_the_clip() -> None:
    found = reach(policy(fusion=Fusion(mllm_weight=0.01)))
    assert found.weighted
    assert found.shift == (pytest.approx(-0.138), pytest.approx(0.138))
    assert found.clear is None


def test_a_block_at_certainty_is_out_of_reach() -> None:
    assert reach(policy(t3_block=1.0, uncertain=0.5)).block is None


def test_in_strict_mode_both_thresholds_tell_what_arrives() -> None:
    strict = Policy(version="test")
    assert reach(strict).arriving.low == pytest.approx(strict.fuse12(0.30, 0.55))
    calibrated = Policy(version="test", fusion=Fusion(stage2=Calibration(temperature=2.0, bias=1.0)))
    lowest_s2 = sigmoid((logit(0.55) - 1.0) * 2.0)
    assert reach(calibrated).arriving.low == pytest.approx(calibrated.fuse12(0.30, lowest_s2))
    by_codec = Policy(version="test", fusion=Fusion(by_codec={"webp_lossy": FusionWeights(bias=-2.0)}))
    assert reach(by_codec).arriving.low == pytest.approx(by_codec.fuse12(0.30, 0.55, "webp_lossy"))


clips = st.tuples(st.floats(-10.0, 0.0), st.floats(0.0, 10.0))
probabilities = st.floats(0.0, 1.0)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    clear, uncertain, block = sorted(draw(st.tuples(probabilities, probabilities, st.floats(0.5, 1.0))))
    thresholds: dict[str, Any] = {
        **DESIGN.model_dump(),
        "t2": draw(probabilities),
        "t3_clear": clear,
        "uncertain": uncertain,
        "t3_block": block if block > clear else 1.0,
        "p12_block": draw(st.floats(0.0, block)),
    }
    fusion = Fusion(mllm_clip=draw(clips), mllm_weight=draw(st.sampled_from([0.0, 0.05, 0.5, 4.0])))
    return Policy(version="test", mode=Mode.FUSED, thresholds=thresholds, fusion=fusion)  # type: ignore[arg-type]


@given(policies().filter(lambda p: p.thresholds.t3_clear < p.thresholds.t3_block), probabilities, probabilities)
def test_no_opinion_blocks_or_clears_from_outside(found: Policy, p12: float, opinion: float) -> None:
    if p12 < found.thresholds.t2:
        return
    spans, final = reach(found), found.final_score(p12, opinion)
    slack = 1e-6
    if found.stage3_outcome(p12, final, False) is Outcome.BLOCK:
        assert spans.block is not None
        assert p12 >= spans.block.low - slack
    if found.stage3_outcome(p12, final, True) is Outcome.PASS:
        assert p12 <= (spans.clear.high if spans.clear else spans.arriving.low) + slack


def verify(path: Path, *options: str) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, ["verify", str(path), *options])
    return result.exit_code, result.output, result.exception


def written(tmp_path: Path, found: Policy) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(found.model_dump_json())
    return path


def test_a_sound_policy_is_printed(tmp_path: Path) -> None:
    code, output, _ = verify(written(tmp_path, policy()))
    assert code == 0
    assert "p12 0.5500 to 0.5899" in output
    assert "p12 0.6000 to 1.0000" in output
    assert "mllm_weight is 0" in output


def test_json_has_the_same_numbers(tmp_path: Path) -> None:
    code, output, _ = verify(written(tmp_path, policy()), "--json")
    assert code == 0
    found = json.loads(output)
    assert found["clear"] == [0.55, pytest.approx(0.58994, abs=1e-4)]
    assert found["faults"] == []


def test_a_useless_policy_is_refused_with_the_way_out(tmp_path: Path) -> None:
    _, output, error = verify(written(tmp_path, policy(t2=0.9, p12_block=0.7)))
    assert isinstance(error, PolicyError)
    assert "from nowhere" in output
    assert "lower t2, raise t3_clear" in str(error)
    assert "raise p12_block above 0.9" in str(error)


@pytest.mark.parametrize("name", ["policy.json", "policy_fused.json"])
def test_the_policies_of_the_package_are_sound(name) -> None:
    result = CliRunner().invoke(app, ["verify", str(DEFAULT_BUNDLE / name)])
    assert result.exit_code == 0, result.output
