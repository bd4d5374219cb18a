"""A sealed bundle with the MLLM's calibration and weight, from its answers on labelled images."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from rich.progress import track

from pipeline.detection.bundle import Bundle, BundleError, MllmEntry, seal, write_manifest
from pipeline.detection.mllm.backends.base import Verifier
from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.detection.mllm.verdict import Basis, MllmCalibration, Opinion
from pipeline.detection.policy import Policy
from pipeline.evaluation.layouts import open_dataset
from pipeline.evaluation.mllm_cases import Case, CaseMaker, ask_patiently
from pipeline.evaluation.mllm_weight import Answers, FittedWeight, TooFewAnswers, fit_weight

CALIBRATION_FILE = "mllm_calibration.json"


class NotCalibrated(Exception):
    """The model's answers cannot be used for a calibration; the text has the way out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One case and what the model said of it; `opinion` None when it gave no report, `failure` says why."""

    case: Case
    opinion: Opinion | None
    failure: str = ""
    model: str = ""
    dialogue: str = ""


@dataclass(frozen=True, slots=True)
class CalibratedMllm:
    """What was written. `left_out`: why -> how many images."""

    fitted: FittedWeight
    calibration: MllmCalibration
    policy: Policy
    answers: int
    left_out: dict[str, int]


def calibrate_mllm(
    directory: Path, source: Path, verifier: Verifier, *, every_image: bool = False, concurrency: int = 1
) -> CalibratedMllm:
    """Ask the verifier about each labelled image that reaches stage 3, fit, and seal the bundle.

    Args:
        directory: the bundle; its `bundle.json`, policy file and MLLM calibration are rewritten.
        source: a dataset's root.
        verifier: not opened yet.
        every_image: ask about all images; where few reach stage 3, this shows what the model says elsewhere.
        concurrency: questions at once.

    Raises:
        BundleError: the bundle is not usable.
        DatasetError: the dataset is not.
        NotCalibrated: no server, no report with token probabilities or confidence, or too few of them.
    """
    bundle = Bundle.load(directory)
    verifier.open()
    try:
        with CaseMaker(bundle) as maker:
            cases = maker.cases(open_dataset(source))
            answers, left_out = ask(track(cases, "asking"), verifier, every_image=every_image, concurrency=concurrency)
    finally:
        verifier.close()
    return write(bundle, answers, left_out)


def ask(
    cases: Iterable[Case | None], verifier: Verifier, *, every_image: bool = False, concurrency: int = 1
) -> tuple[list[Answer], Counter[str]]:
    """One answer for each case that counts, in their order, and why the others do not.

    Raises:
        NotCalibrated: the server does not answer.
    """
    answers, left_out = [], Counter[str]()
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(concurrency) as pool:
        for case in cases:
            if case is None:
                left_out["cannot be decoded, or has no spectrum"] += 1
            elif not case.arrives and not every_image:
                left_out["does not reach stage 3"] += 1
            else:
                waiting.append(pool.submit(_ask, case, verifier))
            if len(waiting) > concurrency:  # so that no more pictures are held than are asked about
                answers.append(waiting.popleft().result())
        answers += [answer.result() for answer in waiting]
    return answers, left_out


def write(bundle: Bundle, answers: list[Answer], left_out: Counter[str]) -> CalibratedMllm:
    """Fit on the answers, write map and weight, seal.

    Raises:
        NotCalibrated: see `calibrate_mllm`.
        BundleError: the bundle cannot be sealed.
    """
    spoken, about = _of_one_dialogue(answers, left_out)
    try:
        fitted = fit_weight(_columns(spoken), bundle.manifest.prior, bundle.policy.fusion.mllm_clip)
        calibration = MllmCalibration.model_validate(about | {"map": fitted.map})
    except TooFewAnswers as error:
        raise NotCalibrated(f"{error}; left out: {dict(left_out)}") from error
    except (ValidationError, ValueError) as error:
        raise NotCalibrated(f"the model's answers: {error}") from error
    policy = _weighted(bundle.policy, fitted.weight, calibration)
    _write_files(bundle, policy, calibration)
    return CalibratedMllm(fitted, calibration, policy, len(spoken), dict(left_out))


def _ask(case: Case, verifier: Verifier) -> Answer:
    try:
        result = ask_patiently(verifier, case.request)
    except ServerUnavailable as error:
        raise NotCalibrated(f"MLLM server: {error}; nothing was written") from error
    if result.opinion is None or result.trace is None:
        return Answer(case, None, result.failure.value if result.failure else "no report")
    trace = result.trace
    return Answer(case, result.opinion, "", result.model, trace.dialogue_sha256)


def _of_one_dialogue(answers: list[Answer], left_out: Counter[str]) -> tuple[list[Answer], dict[str, object]]:
    """The answers with a probability of the commonest kind, and what they share: model, dialogue, basis."""
    kinds = Counter(_dialogue(a) for a in answers if a.opinion and a.opinion.raw is not None)
    if not kinds:
        failures = Counter(a.failure or "undetermined" for a in answers)
        raise NotCalibrated(f"no verdict among {len(answers)} answers ({dict(failures)}); left out: {dict(left_out)}")
    chosen = kinds.most_common(1)[0][0]
    spoken = []
    for answer in answers:
        if answer.opinion is None or answer.opinion.raw is None:
            left_out[answer.failure or "undetermined"] += 1
        elif _dialogue(answer) != chosen:
            left_out["another model or kind of probability"] += 1
        else:
            spoken.append(answer)
    return spoken, dict(zip(("model", "dialogue", "basis"), chosen, strict=True))


def _dialogue(answer: Answer) -> tuple[str, str, Basis]:
    assert answer.opinion is not None  # noqa: S101 - the callers have looked
    return answer.model, answer.dialogue, answer.opinion.basis


def _columns(answers: list[Answer]) -> Answers:
    return Answers(
        p12=np.array([a.case.p12 for a in answers]),
        raw=np.array([a.opinion.raw for a in answers if a.opinion], np.float64),
        synthetic=np.array([a.case.synthetic for a in answers], bool),
        source=tuple(a.case.source for a in answers),
    )


def _weighted(policy: Policy, weight: float, calibration: MllmCalibration) -> Policy:
    """The policy with w3; its version names the calibration, so that decisions do."""
    digest = hashlib.sha256(f"{weight}{calibration.model_dump_json()}".encode()).hexdigest()[:12]
    version = f"{policy.version.partition('+mllm-')[0][:46]}+mllm-{digest}"
    fusion = policy.fusion.model_copy(update={"mllm_weight": weight})
    return policy.model_copy(update={"version": version, "fusion": fusion})


def _write_files(bundle: Bundle, policy: Policy, calibration: MllmCalibration) -> None:
    directory, manifest = bundle.directory, bundle.manifest
    try:
        (directory / CALIBRATION_FILE).write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (directory / manifest.policy).write_text(policy.model_dump_json(indent=2) + "\n", encoding="utf-8")
        entry = (manifest.mllm or MllmEntry()).model_copy(update={"calibration": CALIBRATION_FILE})
        write_manifest(directory, manifest.model_copy(update={"mllm": entry}))
    except OSError as error:
        raise BundleError(f"{directory}: {error}; nothing is sealed, copy the bundle again") from error
    seal(directory)
