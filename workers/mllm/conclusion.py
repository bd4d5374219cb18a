"""What follows from a verification, under one policy: the same for the fleet and for `mediasieve inspect`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.detection.explain import is_authentic, rejected
from pipeline.detection.mllm.backends.base import VerifyResult
from pipeline.detection.mllm.verdict import Opinion
from pipeline.detection.policy import Policy
from schemas.decision import Outcome, Reason, ReasonCode
from schemas.forensics import ForensicReport
from workers.verdicts import reason

_CODES = {
    Outcome.BLOCK: ReasonCode.SYNTHETIC_CONFIRMED,
    Outcome.PASS: ReasonCode.AUTHENTIC_CONFIRMED,
    Outcome.ESCALATE: ReasonCode.UNCERTAIN,
}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The outcome, P(synthetic) after all stages, and why: the numbers, the model's own words, why nothing else."""

    outcome: Outcome
    final: float
    reasons: tuple[Reason, ...]


def conclude(policy: Policy, p12: float, result: VerifyResult) -> Conclusion:
    """Block or pass where scores and verdict agree; without a report, and in every other case, escalate.

    An opinion that no calibration of the bundle stands behind moves no score, whatever weight the policy has.

    Args:
        policy: thresholds, the MLLM's weight and its bounds.
        p12: P(synthetic) of the stages that see pixels.
        result: of the verifier.
    """
    opinion, report = result.opinion, result.report
    heard = opinion.probability if opinion is not None and opinion.calibrated else None
    final = policy.final_score(p12, heard)
    if report is None or opinion is None:
        code = result.failure or ReasonCode.UNCERTAIN
        others = rejected(policy, p12, final, None)
        return Conclusion(Outcome.ESCALATE, final, (reason(code, result.detail), *others))
    outcome = policy.stage3_outcome(p12, final, is_authentic(report.hypothesis))
    code = _CODES[outcome]
    own = (reason(code, _words(p12, final, report, opinion)), reason(code, report.primary_evidence))
    return Conclusion(outcome, final, (*own, *rejected(policy, p12, final, report.hypothesis)))


def _words(p12: float, final: float, report: ForensicReport, opinion: Opinion) -> str:
    """The numbers behind the outcome."""
    said = "no opinion" if opinion.probability is None else f"P(synthetic) {opinion.probability:.2f}"
    verdict = f"the model says {report.hypothesis.value}, {said} ({opinion.note})"
    return f"final {final:.3f}, before the MLLM {p12:.3f}; {verdict}"
