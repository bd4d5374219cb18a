"""P(synthetic) from the verdict's tokens, and from the stated number."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pipeline.detection.bundle import MANIFEST_FILE, Bundle, BundleError, seal
from pipeline.detection.calibration import Calibration, logit, sigmoid
from pipeline.detection.mllm.chat import Token
from pipeline.detection.mllm.report import parse_report
from pipeline.detection.mllm.verdict import Basis, MllmCalibration, opinion_of, verdict_masses
from schemas.forensics import ForensicReport, Hypothesis
from tests.support.mllm import plain_report, report_data, tokens_of
from tests.support.tiny_bundle import make_tiny_bundle


def as_text(hypothesis: str = "gan", confidence: float = 0.9) -> str:
    return json.dumps(plain_report(hypothesis, confidence))


def as_report(hypothesis: str = "gan", confidence: float = 0.9) -> ForensicReport:
    return parse_report(as_text(hypothesis, confidence))


def test_no_hypothesis_begins_as_another_so_one_character_decides() -> None:
    for a, b in combinations(Hypothesis, 2):
        assert a.value[0] != b.value[0]


def test_the_synthetic_hypotheses_are_summed_and_renormalised() -> None:
    shares = {"gan": 0.3, "lor": 0.2, "bas": 0.1, "aut": 0.2, "und": 0.1}
    opinion = opinion_of(as_report(), tokens_of(as_text(), shares))
    assert opinion.basis is Basis.TOKENS
    assert opinion.raw == opinion.probability == pytest.approx(0.6 / 0.8)
    assert opinion.coverage == pytest.approx(0.9)
    assert sum(opinion.shares.values()) == pytest.approx(1.0)
    assert opinion.shares[Hypothesis.UNDETERMINED] == pytest.approx(0.1 / 0.9)
    assert not opinion.calibrated
    assert opinion.note == "token probability, uncalibrated"


def test_the_stated_confidence_does_not_matter_beside_tokens() -> None:
    shares = {"gan": 0.6, "aut": 0.4}
    low, high = (opinion_of(as_report("gan", c), tokens_of(as_text("gan", c), shares)) for c in (0.5, 1.0))
    assert low.raw == high.raw == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("alternatives", "expected"),
    [
        ({"gan": 0.5, "g": 0.2, 'gan",': 0.1, "aut": 0.1, 'authentic"': 0.1}, 0.8),
        ({"gan": 0.5, "real": 0.3, "aut": 0.25}, 0.5 / 0.75),
        ({"gan": 0.5, "": 0.2, "ganx": 0.1, "aut": 0.25}, 0.5 / 0.75),
    ],
    ids=[
        "prefixes, and tokens that span the quote",
        "what begins none is left out",
        "neither empty nor misspelt counts",
    ],
)
def test_an_alternative_counts_for_what_it_can_become(alternatives: dict[str, float], expected: float) -> None:
    assert opinion_of(as_report(), tokens_of(as_text(), alternatives)).raw == pytest.approx(expected)


def test_a_token_that_holds_the_quote_too_is_read() -> None:
    text = as_text()
    # the model wrote ` "gan`; an alternative leaves the space out, one does not get to the value
    tokens = tokens_of(text, {"gan": 0.5, "aut": 0.25}, head=' "')
    place = next(i for i, token in enumerate(tokens) if token.text == ' "gan')
    alternatives = {
        **tokens[place].alternatives,
        '"lora': math.log(0.125),
        ' "': math.log(0.1),
        " null": math.log(0.02),
    }
    tokens = (*tokens[:place], Token(' "gan', math.log(0.5), alternatives), *tokens[place + 1 :])
    assert verdict_masses(tokens) == pytest.approx(
        {Hypothesis.GAN: 0.5, Hypothesis.AUTHENTIC: 0.25, Hypothesis.LORA_TUNED: 0.125}
    )


def test_a_verdict_quoted_in_an_observation_is_not_the_verdict() -> None:
    quoted = report_data()["observations"][0] | {"observation": 'a sign reads {"hypothesis": "authentic"}'}
    text = json.dumps(plain_report("gan", observations=[quoted]))
    tokens = tokens_of(text.replace("\\", "\\"), {"gan": 0.9, "aut": 0.1})
    assert verdict_masses(tokens) == pytest.approx({Hypothesis.GAN: 0.9, Hypothesis.AUTHENTIC: 0.1})


@pytest.mark.parametrize(
    ("hypothesis", "expected"), [("gan", 0.8), ("base_diffusion", 0.8), ("authentic", 0.2), ("undetermined", None)]
)
def test_without_tokens_the_stated_confidence_is_taken(hypothesis: str, expected: float | None) -> None:
    opinion = opinion_of(as_report(hypothesis, 0.8), ())
    assert opinion.basis is Basis.STATED
    assert opinion.probability == (None if expected is None else pytest.approx(expected))
    assert opinion.shares == {}
    assert opinion.note == "stated confidence, uncalibrated"


@pytest.mark.parametrize("tokens", [(Token("hello", -0.1, {"hello": -0.1}),), tokens_of(as_text(), {"xyz": 0.9})[:-40]])
def test_tokens_that_hold_no_verdict_fall_back_to_the_stated_number(tokens: tuple[Token, ...]) -> None:
    assert opinion_of(as_report(), tokens).basis is Basis.STATED


def test_an_undetermined_verdict_has_no_probability_whatever_its_tokens() -> None:
    opinion = opinion_of(as_report("undetermined"), tokens_of(as_text("undetermined"), {"und": 0.6, "gan": 0.4}))
    assert (opinion.raw, opinion.probability) == (None, None)
    assert opinion.mapped(Calibration(bias=3.0)).probability is None


def test_minus_infinity_is_no_mass() -> None:
    text = as_text()
    tokens = tokens_of(text, {"gan": 1.0})
    place = next(i for i, token in enumerate(tokens) if token.text == "gan")
    forced = Token("gan", 0.0, {"gan": 0.0, "aut": -math.inf, "lor": math.nan})
    assert verdict_masses((*tokens[:place], forced, *tokens[place + 1 :])) == {Hypothesis.GAN: 1.0}


def test_the_map_of_the_bundle_is_applied_to_the_logit() -> None:
    opinion = opinion_of(as_report(), tokens_of(as_text(), {"gan": 0.8, "aut": 0.2}))
    mapped = opinion.mapped(Calibration(temperature=2.0, bias=-1.0))
    assert mapped.probability == pytest.approx(sigmoid(logit(0.8) / 2.0 - 1.0))
    assert mapped.raw == opinion.raw
    assert mapped.note == "token probability, calibrated"


FITTED = {"model": "m@1", "dialogue": "a" * 64, "basis": "tokens", "map": {"temperature": 2.0}}


def with_calibration(directory: Path, content: dict[str, Any]) -> Bundle:
    path = make_tiny_bundle(directory)
    (path / "mllm.json").write_text(json.dumps(content))
    manifest = json.loads((path / MANIFEST_FILE).read_text()) | {"mllm": {"calibration": "mllm.json"}}
    (path / MANIFEST_FILE).write_text(json.dumps(manifest))
    seal(path)
    return Bundle.load(path)


def test_a_bundles_calibration_is_read_and_knows_its_dialogue(tmp_path: Path) -> None:
    calibration = MllmCalibration.of(with_calibration(tmp_path / "b", FITTED))
    assert calibration is not None
    assert calibration.fits("m@1", "a" * 64, Basis.TOKENS)
    for other in (("m@2", "a" * 64), ("m@1", "b" * 64)):
        assert not calibration.fits(*other, Basis.TOKENS)
    assert not calibration.fits("m@1", "a" * 64, Basis.STATED)


def test_a_log_probability_above_0_counts_as_certainty() -> None:
    text = json.dumps(plain_report("gan"))
    tokens = tokens_of(text, {"gan": 0.5, "aut": 0.5})
    wild = tuple(replace(token, logprob=1000.0, alternatives={token.text: 1000.0}) for token in tokens)
    assert opinion_of(parse_report(text), wild).probability == 1.0


def test_the_verdicts_log_probabilities_are_kept() -> None:
    text = json.dumps(plain_report("gan"))
    opinion = opinion_of(parse_report(text), tokens_of(text, {"gan": 0.75, "aut": 0.25}))
    assert opinion.logprobs == pytest.approx({"gan": math.log(0.75), "aut": math.log(0.25)})


def test_a_bundle_without_one_has_none(tmp_path: Path) -> None:
    assert MllmCalibration.of(Bundle.load(make_tiny_bundle(tmp_path / "b"))) is None


@pytest.mark.parametrize("fault", [{"dialogue": "x"}, {"basis": "guess"}, {"map": {"temperature": -1}}])
def test_an_unusable_calibration_names_its_field(tmp_path: Path, fault: dict[str, Any]) -> None:
    bundle = with_calibration(tmp_path / "b", FITTED | fault)
    with pytest.raises(BundleError, match=next(iter(fault))):
        MllmCalibration.of(bundle)
