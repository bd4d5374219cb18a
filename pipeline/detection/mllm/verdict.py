"""P(synthetic) of one report: from the probabilities of the verdict's own tokens, or as the model states it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.calibration import Calibration, logit
from pipeline.detection.mllm.chat import Token
from schemas.forensics import ForensicReport, Hypothesis
from schemas.types import Sha256

SYNTHETIC = (Hypothesis.BASE_DIFFUSION, Hypothesis.LORA_TUNED, Hypothesis.GAN)
_VERDICT_KEY = re.compile(r'"hypothesis"\s*:\s*"')
"""Within a JSON string every quote is escaped, so this stands at the key and nowhere else."""


class Basis(StrEnum):
    """Where P(synthetic) comes from: the tokens' probabilities, or the number in the report."""

    TOKENS = "tokens"
    STATED = "stated"


class MllmCalibration(BaseModel):
    """The bundle's map from the raw probability to P(synthetic), and the only dialogue that it was fitted for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=128, description="`ChatModel.model`, with its revision")]
    dialogue: Annotated[Sha256, Field(description="`Trace.dialogue_sha256` of what was asked, and how")]
    basis: Basis
    map: Annotated[Calibration, Field(description="from logit(raw probability)")]

    @classmethod
    def of(cls, bundle: Bundle) -> MllmCalibration | None:
        """The bundle's, or None where it has none.

        Raises:
            BundleError: the file cannot be used, with the field.
        """
        entry = bundle.manifest.mllm
        if entry is None or entry.calibration is None:
            return None
        path = bundle.path(entry.calibration)
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise BundleError(f"{path}: {error}; fit it again with `bundle calibrate --stage mllm`") from error

    def fits(self, model: str, dialogue: str, basis: Basis) -> bool:
        """True: it was fitted for just this model, this dialogue and this kind of probability."""
        return (self.model, self.dialogue, self.basis) == (model, dialogue, basis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What a report says as a number.

    `probability`: P(synthetic), given that the model decides at all, after the map where `calibrated`; None when the
    verdict is undetermined. `raw`: the same before the map. `shares`: of each hypothesis among those that the tokens
    allow, summing to 1; empty where the basis is `stated`. `coverage`: the probability that these had together before.
    `logprobs`: of the verdict's token and its alternatives as the server gave them, from which all this can be
    computed again.
    """

    probability: float | None
    raw: float | None
    basis: Basis
    calibrated: bool = False
    shares: Mapping[Hypothesis, float] = field(default_factory=dict)
    coverage: float = 0.0
    logprobs: Mapping[str, float] = field(default_factory=dict)

    def mapped(self, calibration: Calibration) -> Opinion:
        """After the bundle's map."""
        mapped = None if self.raw is None else calibration.probability(logit(self.raw))
        return replace(self, probability=mapped, calibrated=True)

    @property
    def note(self) -> str:
        """For `StageScore.note`."""
        state = "calibrated" if self.calibrated else "uncalibrated"
        return f"{'token probability' if self.basis is Basis.TOKENS else 'stated confidence'}, {state}"


def opinion_of(report: ForensicReport, tokens: Sequence[Token]) -> Opinion:
    """P(synthetic), not calibrated.

    From the tokens: sum over the synthetic hypotheses divided by the sum over all that decide; `undetermined` speaks
    for neither class and is left out. Without token probabilities, or where they allow no hypothesis that decides:
    the stated confidence, which is P(the choice between authentic and synthetic is right).
    """
    head, logprobs = _verdict_token(tokens)
    masses = _masses(head, logprobs)
    coverage = sum(masses.values())
    synthetic = sum(masses.get(hypothesis, 0.0) for hypothesis in SYNTHETIC)
    deciding = synthetic + masses.get(Hypothesis.AUTHENTIC, 0.0)
    undetermined = report.hypothesis is Hypothesis.UNDETERMINED
    if deciding <= 0.0:
        stated = None if undetermined else _stated(report)
        return Opinion(probability=stated, raw=stated, basis=Basis.STATED, logprobs=logprobs)
    raw = None if undetermined else min(1.0, synthetic / deciding)
    shares = {hypothesis: mass / coverage for hypothesis, mass in masses.items()}
    return Opinion(probability=raw, raw=raw, basis=Basis.TOKENS, shares=shares, coverage=coverage, logprobs=logprobs)


def verdict_masses(tokens: Sequence[Token]) -> dict[Hypothesis, float]:
    """Probability of each hypothesis at the token that begins the verdict; what begins no hypothesis is left out.

    That token may hold the quote before the value, or more of the JSON than the value; an alternative to it counts
    when what it writes can only become one hypothesis. Empty without tokens, or when the verdict is not among them.
    """
    return _masses(*_verdict_token(tokens))


def _verdict_token(tokens: Sequence[Token]) -> tuple[str, dict[str, float]]:
    """The part before the value of the token that begins it, and the log probabilities at its place."""
    text = "".join(token.text for token in tokens)
    key = _VERDICT_KEY.search(text)
    if key is None:
        return "", {}
    begin, at = 0, key.end()
    for token in tokens:
        if begin <= at < begin + len(token.text):
            return token.text[: at - begin], {**token.alternatives, token.text: token.logprob}
        begin += len(token.text)
    return "", {}


def _masses(head: str, logprobs: Mapping[str, float]) -> dict[Hypothesis, float]:
    """`head`: the part of the token before the value; white space in it is JSON's and may differ."""
    masses: dict[Hypothesis, float] = {}
    for text, logprob in logprobs.items():
        hypothesis = _only_hypothesis(_after(head, text))
        if hypothesis is not None and math.isfinite(logprob):
            # A server that gives a log probability above 0 must not stop the worker.
            masses[hypothesis] = masses.get(hypothesis, 0.0) + math.exp(min(0.0, logprob))
    return masses


def _after(head: str, text: str) -> str:
    """What `text` writes of the value in place of a token that began with `head`; empty if it does not get there."""
    if not head:
        return text
    wanted, squeezed = "".join(head.split()), "".join(text.split())
    return squeezed.removeprefix(wanted) if squeezed.startswith(wanted) else ""


def _only_hypothesis(written: str) -> Hypothesis | None:
    if not written:
        return None
    found = [h for h in Hypothesis if f'{h.value}"'.startswith(written) or written.startswith(f'{h.value}"')]
    return found[0] if len(found) == 1 else None


def _stated(report: ForensicReport) -> float:
    return 1.0 - report.confidence if report.hypothesis is Hypothesis.AUTHENTIC else report.confidence
