"""Outcomes and reasons as sentences for people who do not know the codes."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.decision import Decision, Outcome, Reason, ReasonCode, Risk
from schemas.types import StageName
from workers.explain.events import Event
from workers.explain.story import ReasonStory, Side
from workers.explain.times import moment

REASON_WORDS = {
    ReasonCode.SCORE_BELOW_T1: "the classifier's score lies below its threshold",
    ReasonCode.ANOMALY_BELOW_T2: "the spectral stage found too little to go on",
    ReasonCode.SYNTHETIC_CONFIRMED: "scores and model agree that it is synthetic",
    ReasonCode.AUTHENTIC_CONFIRMED: "scores and model agree that it is authentic",
    ReasonCode.UNCERTAIN: "the evidence is not enough for a block or for a pass",
    ReasonCode.NOT_BLOCKED: "what kept it from a block",
    ReasonCode.NOT_CLEARED: "what kept it from a pass",
    ReasonCode.SPECTRAL_NOT_APPLICABLE: "its spectrum says nothing, neither for nor against",
    ReasonCode.EXPIRED: "the producer's deadline had passed before it was analysed",
    ReasonCode.MEDIA_TRUNCATED: "the file is cut short",
    ReasonCode.MEDIA_TOO_LARGE: "the file is larger than what is analysed",
    ReasonCode.MEDIA_UNSUPPORTED: "the file is of a kind that is not analysed",
    ReasonCode.MEDIA_TYPE_MISMATCH: "the file is not what it claims to be",
    ReasonCode.MEDIA_UNDECODABLE: "the file cannot be decoded",
    ReasonCode.ANALYSIS_CRASH: "the analysis of this file ended in a crash",
    ReasonCode.DEPENDENCY_UNAVAILABLE: "something that the analysis needs was not there for too long",
    ReasonCode.CONTENT_MISSING: "the stored original could not be read",
    ReasonCode.MLLM_UNCONFIGURED: "no model is configured for the last stage",
    ReasonCode.MLLM_UNAVAILABLE: "the model of the last stage did not answer",
    ReasonCode.MLLM_TIMEOUT: "the model of the last stage took too long",
    ReasonCode.MLLM_REFUSED: "the model of the last stage refused to answer",
    ReasonCode.MLLM_INVALID_REPORT: "the model's report was not valid",
    ReasonCode.MLLM_OVERLOADED: "the model of the last stage had more work than it could do in time",
}
_SIDES = {
    ReasonCode.NOT_BLOCKED: Side.AGAINST_BLOCK,
    ReasonCode.NOT_CLEARED: Side.AGAINST_PASS,
}


def headline(decision: Decision) -> str:
    """The outcome in one plain sentence, with the numbers that decided."""
    t, score = decision.thresholds, decision.final_score
    match decision.outcome, decision.risk:
        case Outcome.BLOCK, _:
            return f"Blocked as synthetic: the final score {_number(score)} is at least {t.t3_block:g}."
        case Outcome.ESCALATE, _:
            return f"Held for a person to look at: {REASON_WORDS[decision.reasons[0].code]}."
        case _, Risk.RELEASED:
            below = f"the classifier's score {_number(score)} lies below {t.t1:g}"
            return f"Passed without a closer look: {below}, so no later stage was asked."
        case _, Risk.CLEARED:
            return (
                f"Passed after all stages: the model called it authentic and the final score {_number(score)} "
                f"is at most {t.t3_clear:g}."
            )
        case _:
            return f"Passed as low risk by the second stage: {REASON_WORDS[decision.reasons[0].code]}."


def later(events: Sequence[Event]) -> str:
    """What became of it after the machine's verdict; empty when nothing did."""
    after = [event for event in events if event.sequence > events[0].sequence]
    if not after:
        return ""
    last = after[-1]
    effect = f" Its effect: {last.disposition.lower()}." if last.disposition else ""
    return f"Since then, on {moment(last.at)}: {last.message}.{effect}"


def outcome_words(outcome: Outcome, risk: Risk | None) -> str:
    """`pass (low risk)` for a table."""
    return f"{outcome.value} ({risk.value.replace('_', ' ')})" if risk else outcome.value


def stage_name(stage: StageName) -> str:
    """For people."""
    return "MLLM" if stage is StageName.MLLM else stage.value


def reason_stories(decision: Decision) -> tuple[ReasonStory, ...]:
    """The reasons in their order; `uncertain` beside a ranking only says in which order people look."""
    ranked = any(r.code in _SIDES for r in decision.reasons)
    return tuple(_story(reason, at, ranked) for at, reason in enumerate(decision.reasons))


def _story(reason: Reason, at: int, ranked: bool) -> ReasonStory:
    side = _SIDES.get(reason.code, Side.OUTCOME)
    words = REASON_WORDS[reason.code]
    if reason.code is ReasonCode.UNCERTAIN and ranked and at > 0 and reason.detail.startswith("review ranks"):
        side, words = Side.ORDER, "in which order people look at it"
    return ReasonStory(side=side, code=reason.code, words=words, detail=reason.detail)


def _number(score: float | None) -> str:
    return "that was not recorded" if score is None else f"{score:.3f}"
