"""`mediasieve bundle calibrate --stage mllm`: answers on labelled images become a map and a weight, or nothing does."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from typer.testing import CliRunner

from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.backends.base import VerifyRequest, VerifyResult
from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.detection.mllm.trace import Trace
from pipeline.detection.mllm.verdict import Basis, MllmCalibration, Opinion
from pipeline.evaluation import mllm_cases
from pipeline.evaluation.layouts import open_dataset
from pipeline.evaluation.mllm_cases import Case, CaseMaker, ask_patiently
from pipeline.training.calibrate_mllm import CALIBRATION_FILE, Answer, NotCalibrated, ask, calibrate_mllm, write
from schemas.decision import ReasonCode
from schemas.forensics import Hypothesis
from tests.support.tiny_bundle import make_dataset, make_tiny_bundle
from tests.support.worker_stages import report
from workers.cli.bundle import app
from workers.cli.bundle_training import TrainingRefused

DIALOGUE = "c" * 64


def said(raw: float | None, basis: Basis = Basis.TOKENS, model: str = "m@1") -> VerifyResult:
    opinion = Opinion(probability=raw, raw=raw, basis=basis)
    made = report(Hypothesis.UNDETERMINED if raw is None else Hypothesis.GAN)
    trace = Trace(
        model=model,
        backend="scripted",
        capabilities=None,
        prompts={},
        dialogue_sha256=DIALOGUE,
        passes=2,
        prefill="",
        report=made,
        opinion=opinion,
    )
    return VerifyResult(report=made, opinion=opinion, model=model, trace=trace, duration_s=0.1)


class ByBrightness:
    """Says what the picture's mean level says, which the tiny bundle's classifier sees too, with noise of its own."""

    model = "m@1"

    def __init__(self) -> None:
        self.asked = 0
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def verify(self, request: VerifyRequest) -> VerifyResult:
        self.asked += 1
        return said(hashlib.sha256(request.original).digest()[0] / 255.0)

    def close(self) -> None:
        self.calls.append("close")


def case(number: int, synthetic: bool, p12: float = 0.7, *, arrives: bool = True) -> Case:
    request = VerifyRequest(
        original=b"x",
        original_content_type=None,
        panel_png=b"\x89PNG\r\n\x1a\n",
        features=(),
        stratum="png",
        scores=(),
        width=1,
        height=1,
    )
    return Case(f"k{number}", synthetic, f"{'g' if synthetic else 'r'}{number % 3}", p12, arrives, request)


def answers(count: int = 60, knows: float = 2.0) -> list[Answer]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(2 * count):
        synthetic = number % 2 == 1
        p12 = float(expit(rng.normal(1.0 if synthetic else 0.5, 0.5)))
        raw = float(expit(rng.normal(knows if synthetic else -knows, 1.5)))
        found.append(Answer(case(number, synthetic, p12), said(raw).opinion, "", "m@1", DIALOGUE))
    return found


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(make_tiny_bundle(tmp_path / "bundle"))


def test_map_and_weight_are_written_and_sealed(bundle: Bundle) -> None:
    done = write(bundle, answers(), Counter({"why": 2}))
    again = Bundle.load(bundle.directory)
    assert done.answers == 120
    assert done.left_out == {"why": 2}
    assert done.fitted.weight > 0.0
    assert again.policy == done.policy
    assert again.policy.fusion.mllm_weight == done.fitted.weight
    assert again.policy.thresholds == bundle.policy.thresholds
    assert again.policy.version.startswith(f"{bundle.policy.version}+mllm-")
    assert MllmCalibration.of(again) == done.calibration
    assert done.calibration.fits("m@1", DIALOGUE, Basis.TOKENS)
    assert not done.calibration.fits("m@2", DIALOGUE, Basis.TOKENS)


def test_a_second_calibration_takes_the_place_of_the_first(bundle: Bundle) -> None:
    first = write(bundle, answers(), Counter())
    second = write(Bundle.load(bundle.directory), answers(knows=1.0), Counter())
    assert second.policy.version != first.policy.version
    assert second.policy.version.count("+mllm-") == 1


def test_a_model_that_knows_nothing_gets_its_map_and_no_weight(bundle: Bundle) -> None:
    done = write(bundle, answers(knows=0.05), Counter())
    assert done.fitted.weight == 0.0
    assert Bundle.load(bundle.directory).policy.fusion.mllm_weight == 0.0


def test_a_second_kind_of_answer_is_left_out(bundle: Bundle) -> None:
    few = [Answer(case(900 + i, True), said(0.9, Basis.STATED).opinion, "", "m@1", DIALOGUE) for i in range(5)]
    none = [Answer(case(990, True), said(None).opinion, "", "m@1", DIALOGUE), Answer(case(991, True), None, "mllm_x")]
    done = write(bundle, [*answers(), *few, *none], Counter())
    assert done.answers == 120
    assert done.left_out == {"another model or kind of probability": 5, "undetermined": 1, "mllm_x": 1}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (answers(49), "49 answers on generated images: calibration needs 50"),
        (answers(knows=-2.0), "fall as the label rises"),
        ([Answer(case(0, True), None, "mllm_timeout")], "no verdict among 1 answers .*mllm_timeout"),
        ([], "no verdict among 0 answers"),
    ],
)
def test_what_cannot_be_fitted_leaves_the_bundle_as_it_was(bundle: Bundle, given: list[Answer], says: str) -> None:
    before = {path.name: path.read_bytes() for path in bundle.directory.iterdir()}
    with pytest.raises(NotCalibrated, match=says):
        write(bundle, given, Counter())
    assert {path.name: path.read_bytes() for path in bundle.directory.iterdir()} == before


def test_only_what_reaches_stage_3_is_asked_about_unless_told() -> None:
    cases = [None, case(1, True), case(2, False, arrives=False)]
    verifier = ByBrightness()
    found, left_out = ask(cases, verifier)
    assert [a.case.key for a in found] == ["k1"]
    assert left_out == {"cannot be decoded, or has no spectrum": 1, "does not reach stage 3": 1}
    found, _ = ask(cases, verifier, every_image=True, concurrency=3)
    assert [a.case.key for a in found] == ["k1", "k2"]
    assert found[0].dialogue == DIALOGUE


def test_a_failure_keeps_its_code_and_an_absent_server_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllm_cases, "_WAIT_S", 0.0)

    class Failing(ByBrightness):
        gives: Any = VerifyResult(failure=ReasonCode.MLLM_REFUSED, detail="", model="m", duration_s=0.0)

        def verify(self, request: VerifyRequest) -> VerifyResult:
            if isinstance(self.gives, Exception):
                raise self.gives
            return self.gives  # type: ignore[no-any-return]  # as scripted

    failing = Failing()
    (answer,), _ = ask([case(1, True)], failing)
    assert (answer.opinion, answer.failure) == (None, "mllm_refused")
    failing.gives = ServerUnavailable("refused")
    with pytest.raises(NotCalibrated, match="MLLM server: refused"):
        ask([case(1, True)], failing)


def test_a_server_that_asks_for_time_gets_it_and_one_that_does_not_is_not_asked_again() -> None:
    class Busy(ByBrightness):
        refusals = 4
        retry_after_s = 300.0

        def verify(self, request: VerifyRequest) -> VerifyResult:
            self.asked += 1
            if self.asked <= self.refusals:
                raise ServerUnavailable("busy", self.retry_after_s)
            return said(0.5)

    request, waited = case(1, True).request, list[float]()
    assert ask_patiently(Busy(), request, waited.append).opinion is not None
    assert waited == [60.0] * 4
    for retry_after_s, wait_s in ((1.0, 1.0), (0.0, 5.0)):
        refusals, asked = 5, 5
        waited.clear()
        busy = Busy()
        busy.refusals, busy.retry_after_s = refusals, retry_after_s
        with pytest.raises(ServerUnavailable):
            ask_patiently(busy, request, waited.append)
        assert busy.asked == asked
        assert waited == [wait_s] * 4


def test_cases_are_what_stage_3_would_be_given(bundle: Bundle, tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "data", images=2))
    with CaseMaker(bundle) as maker:
        cases = list(maker.cases(dataset))
    assert cases.count(None) == 1
    known = [c for c in cases if c is not None]
    assert [c.synthetic for c in known] == [False, True, False, True]
    for found in known:
        assert found.request.panel_png.startswith(b"\x89PNG")
        assert 0 < len(found.request.features) <= 8
        assert found.request.scores == ()
    assert [c.arrives for c in known if not c.synthetic] == [False, False], "dark pictures leave at T1"


def test_too_few_images_are_refused_after_asking(bundle: Bundle, tmp_path: Path) -> None:
    verifier = ByBrightness()
    with pytest.raises(NotCalibrated, match="needs 50 of each class"):
        calibrate_mllm(bundle.directory, make_dataset(tmp_path / "data", images=3), verifier, every_image=True)
    assert verifier.asked == 6
    assert verifier.calls == ["open", "close"]
    assert not (bundle.directory / CALIBRATION_FILE).exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--stage", "mllm"], "no MLLM is configured"),
        (["--stage", "mllm", "--method", "bias"], "--method is for --stage classifier"),
        (["--every-image"], "--every-image is for --stage mllm"),
    ],
)
def test_the_command_says_what_is_missing(bundle: Bundle, tmp_path: Path, options: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["calibrate", str(bundle.directory), str(tmp_path), *options])
    assert isinstance(result.exception, TrainingRefused)
    assert says in str(result.exception)
