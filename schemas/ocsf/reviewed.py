"""What people say of a decision, as events of the same finding: Update for a review, Close for a closed case."""

from __future__ import annotations

from datetime import datetime

from schemas.decision import Decision, Outcome
from schemas.ocsf.decided import activity_fields, captioned, common_fields, control, metadata, severity
from schemas.ocsf.finding import DetectionFinding, milliseconds
from schemas.ocsf.numbers import Action, Activity, Disposition, Severity, Status, Verdict
from schemas.ocsf.objects import Unmapped, User
from schemas.review import Label, ReviewVerdict

VERDICTS = {
    Label.GENERATED: Verdict.TRUE_POSITIVE,
    Label.AI_PROCESSED: Verdict.SUSPICIOUS,
    Label.PHOTOGRAPH: Verdict.FALSE_POSITIVE,
    Label.UNDECIDABLE: Verdict.INSUFFICIENT_DATA,
}
"""On the claim "this media is synthetic", whatever the machine decided: a pass that people call generated is a true
positive that was missed."""

_SEVERITY = {
    Label.GENERATED: Severity.HIGH,
    Label.AI_PROCESSED: Severity.LOW,
    Label.PHOTOGRAPH: Severity.INFORMATIONAL,
    Label.UNDECIDABLE: Severity.MEDIUM,
}
_ALLOWED = Action.ALLOWED, Disposition.ALLOWED
_BLOCKED = Action.DENIED, Disposition.BLOCKED
_FINALLY = {
    Label.GENERATED: _BLOCKED,
    Label.AI_PROCESSED: _ALLOWED,  # an AI-processed photograph alone never blocks
    Label.PHOTOGRAPH: _ALLOWED,
    Label.UNDECIDABLE: _BLOCKED,
}


def finding_from_review(
    decision: Decision, review: ReviewVerdict, sequence: int, in_force: Outcome | None = None
) -> DetectionFinding:
    """An Update: one reviewer's answer. The case stays open and held media stays held; Close ends both.

    `sequence` counts the finding's events from 1. `in_force`: what holds while the case is open, where that is not the
    machine's outcome, as in an appeal against people's. It alerts when people call media generated.

    Raises:
        ValueError: the review is of another decision, or `sequence` is that of the Create.
    """
    _check(decision, review, sequence)
    action, disposition = _in_force(decision, in_force)
    generated = review.label is Label.GENERATED
    return DetectionFinding(
        **activity_fields(Activity.UPDATE),
        **captioned("severity", _SEVERITY[review.label]),
        **captioned("status", Status.IN_PROGRESS),
        **captioned("action", action),
        **captioned("disposition", disposition),
        **captioned("verdict", VERDICTS[review.label]),
        **common_fields(decision),
        time=milliseconds(review.reviewed_at),
        message=": ".join(filter(None, (f"Reviewed as {review.label}", review.rationale))),
        is_alert=generated,
        assignee=User(name=review.reviewer),
        comment=review.rationale or None,
        metadata=metadata(decision, Activity.UPDATE, sequence, f"review.{review.label}", incident=True),
        unmapped=Unmapped(mediasieve=decision, review=review),
    )


def finding_from_closed_case(
    decision: Decision, review: ReviewVerdict | None, closed_at: datetime, sequence: int
) -> DetectionFinding:
    """A Close: what finally happens with the media, by the review that counts.

    Without a review the case is Archived, and what was held is not let through. `closed_at` has a time zone;
    `sequence` counts the finding's events from 1.

    Raises:
        ValueError: the review is of another decision, or `sequence` is that of the Create.
    """
    _check(decision, review, sequence)
    action, disposition = _finally(decision, review)
    label = None if review is None else review.label
    return DetectionFinding(
        **activity_fields(Activity.CLOSE),
        **captioned("severity", severity(decision) if label is None else _SEVERITY[label]),
        **captioned("status", _closed_status(label)),
        **captioned("action", action),
        **captioned("disposition", disposition),
        **captioned("verdict", None if label is None else VERDICTS[label]),
        **common_fields(decision),
        time=milliseconds(closed_at),
        message=f"Case closed: {label or 'without a review'}",
        is_alert=False,
        assignee=None if review is None else User(name=review.reviewer),
        metadata=metadata(decision, Activity.CLOSE, sequence, "closed", incident=True),
        unmapped=Unmapped(mediasieve=decision, review=review),
    )


def _in_force(decision: Decision, outcome: Outcome | None) -> tuple[Action, Disposition]:
    if outcome is None or outcome is decision.outcome:
        return control(decision)
    return {Outcome.PASS: _ALLOWED, Outcome.BLOCK: _BLOCKED}.get(outcome, (Action.DENIED, Disposition.DELAYED))


def _finally(decision: Decision, review: ReviewVerdict | None) -> tuple[Action, Disposition]:
    if review is not None:
        return _FINALLY[review.label]
    return _BLOCKED if decision.outcome is Outcome.ESCALATE else control(decision)


def _closed_status(label: Label | None) -> Status:
    if label is None:
        return Status.ARCHIVED
    return Status.SUPPRESSED if label is Label.PHOTOGRAPH else Status.RESOLVED


def _check(decision: Decision, review: ReviewVerdict | None, sequence: int) -> None:
    if sequence < 1:
        raise ValueError(f"sequence is {sequence}; 0 is the Create, later events of a finding count from 1")
    if review is not None and review.decision_uid != decision.decision_uid:
        raise ValueError(f"decision_uid {review.decision_uid} of the review is not the decision's, find its own")
