"""Why stage 3 did not decide otherwise: one reason for each outcome that was possible and not taken."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.detection.policy import Policy
from schemas.decision import Outcome, Reason, ReasonCode
from schemas.forensics import Hypothesis


def is_authentic(hypothesis: Hypothesis | None) -> bool | None:
    """What a verdict says of the media; None where it decides nothing or there is none."""
    if hypothesis is None or hypothesis is Hypothesis.UNDETERMINED:
        return None
    return hypothesis is Hypothesis.AUTHENTIC


def rejected(policy: Policy, p12: float, final: float, hypothesis: Hypothesis | None) -> tuple[Reason, ...]:
    """Every condition that kept the item from a block, and from a pass; none for the outcome that was taken.

    An escalation also says by which side of `uncertain` its review is ranked.

    Args:
        policy: whose thresholds decide.
        p12: P(synthetic) before the MLLM.
        final: P(synthetic) after it.
        hypothesis: of a valid report; None without one.
    """
    outcome = policy.stage3_outcome(p12, final, is_authentic(hypothesis))
    found = []
    if outcome is not Outcome.BLOCK:
        detail = "; ".join(_against_a_block(policy, p12, final, hypothesis))
        found.append(Reason(code=ReasonCode.NOT_BLOCKED, detail=detail))
    if outcome is not Outcome.PASS:
        found.append(Reason(code=ReasonCode.NOT_CLEARED, detail="; ".join(_against_a_pass(policy, final, hypothesis))))
    if outcome is Outcome.ESCALATE:
        found.append(Reason(code=ReasonCode.UNCERTAIN, detail=_side(policy, final)))
    return tuple(found)


def _against_a_block(policy: Policy, p12: float, final: float, hypothesis: Hypothesis | None) -> Iterator[str]:
    t = policy.thresholds
    if not final >= t.t3_block:
        yield f"final {final:.3f} < t3_block {t.t3_block:g}"
    if not p12 >= t.p12_block:
        yield f"before the MLLM {p12:.3f} < p12_block {t.p12_block:g}"
    if is_authentic(hypothesis) is not False:
        yield f"{_verdict(hypothesis)} names no generator"


def _against_a_pass(policy: Policy, final: float, hypothesis: Hypothesis | None) -> Iterator[str]:
    t = policy.thresholds
    if not final <= t.t3_clear:
        yield f"final {final:.3f} > t3_clear {t.t3_clear:g}"
    if is_authentic(hypothesis) is not True:
        yield f"{_verdict(hypothesis)} is not authentic"


def _verdict(hypothesis: Hypothesis | None) -> str:
    return "a missing verdict" if hypothesis is None else f"verdict {hypothesis.value}"


def _side(policy: Policy, final: float) -> str:
    cut = policy.thresholds.uncertain
    side, sign = ("synthetic", ">=") if final >= cut else ("real", "<")
    return f"review ranks it as likely {side}: final {final:.3f} {sign} {cut:g}"
