"""The dialogue with the MLLM, from the trace that the decision names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.decision import Decision
from schemas.types import StageName
from schemas.wire import WireError, describe, parse_json
from workers.explain.story import AnswerStory, EvidenceStory, MllmStory
from workers.explain.words import REASON_WORDS

KIND = "mllm_trace"
MAX_SHOWN_CHARS = 20_000
"""Of one text; the whole answer lies in the store under its digest."""

Texts = Callable[[str], tuple[str | None, str]]
"""Digest of a raw answer -> its text or None, and a sentence on what became of it."""


class _Tolerant(BaseModel):
    """A trace of a later release may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Turn(_Tolerant):
    name: str
    question: str
    raw_sha256: str
    finish: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    fault: str | None = None


class _Opinion(_Tolerant):
    probability: float | None
    raw: float | None
    basis: str
    calibrated: bool
    shares: dict[str, float] = Field(default_factory=dict)
    coverage: float = 0.0


class _Trace(_Tolerant):
    model: str
    backend: str
    dialogue_sha256: str
    passes: int
    turns: tuple[_Turn, ...] = ()
    report: dict[str, Any] | None = None
    opinion: _Opinion | None = None
    failure: str | None = None
    detail: str = ""


def mllm_story(decision: Decision, kept: EvidenceStory | None, data: bytes | None, texts: Texts) -> MllmStory:
    """From the trace's bytes; without them one sentence on why there are none."""
    if data is None:
        return MllmStory(absent=_absent(decision, kept))
    try:
        trace = _Trace.model_validate(parse_json(data))
    except (WireError, ValidationError) as error:
        why = describe(error) if isinstance(error, ValidationError) else str(error)
        return MllmStory(absent=f"The trace was read, but it has a form that this release does not know: {why}.")
    opinion = trace.opinion
    return MllmStory(
        model=trace.model,
        backend=trace.backend,
        dialogue_sha256=trace.dialogue_sha256,
        passes=trace.passes,
        probability=opinion.probability if opinion else None,
        raw_probability=opinion.raw if opinion else None,
        basis=opinion.basis if opinion else None,
        calibrated=opinion.calibrated if opinion else None,
        coverage=opinion.coverage if opinion else None,
        shares=opinion.shares if opinion else {},
        report=trace.report,
        failure=f"{trace.failure}: {trace.detail}" if trace.failure else None,
        answers=tuple(_answer(turn, texts) for turn in trace.turns),
    )


def cut(text: str) -> str:
    """At most `MAX_SHOWN_CHARS`, and a word on what is left out."""
    left = len(text) - MAX_SHOWN_CHARS
    return text if left <= 0 else f"{text[:MAX_SHOWN_CHARS]}\n[{left} more characters in the evidence store]"


def _answer(turn: _Turn, texts: Texts) -> AnswerStory:
    text, said = texts(turn.raw_sha256)
    return AnswerStory(
        name=turn.name,
        question=cut(turn.question),
        text=None if text is None else cut(text),
        said=said,
        raw_sha256=turn.raw_sha256,
        finish=turn.finish,
        prompt_tokens=turn.prompt_tokens,
        completion_tokens=turn.completion_tokens,
        latency_s=turn.latency_s,
        fault=turn.fault,
    )


def _absent(decision: Decision, kept: EvidenceStory | None) -> str:
    if kept is not None:
        return f"The trace of the dialogue cannot be shown: {kept.said}"
    if decision.stage_exited is not StageName.MLLM:
        return f"No model was asked: the {decision.stage_exited.value} stage decided."
    return f"No dialogue was kept: {REASON_WORDS[decision.reasons[0].code]}."
