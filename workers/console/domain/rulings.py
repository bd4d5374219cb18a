"""What reviewers answer: four eyes, the records that follow, and the end of a case."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

from pydantic import ValidationError
from sqlalchemy import insert, select, update

from schemas.decision import Decision, Outcome
from schemas.review import ActionKind, Label, ReviewVerdict
from schemas.wire import describe
from workers.console.domain.claims import recuse, surrender
from workers.console.domain.events import close_event, review_event, update_event
from workers.console.domain.models import CaseState, Verdict
from workers.console.domain.outcomes import OUTCOME_OF, agreed
from workers.console.domain.tables import cases, gold, verdicts
from workers.console.domain.turn import Case, Turn, decision_of, moment


@dataclass(frozen=True, slots=True)
class Answer:
    """As the page sends it."""

    token: str
    label: Label
    rationale: str
    reviewer: str
    family: str | None


def decide(turn: Turn, answer: Answer) -> Verdict:
    """See ReviewService."""
    case = surrender(turn, answer.token, answer.reviewer)
    decision = decision_of(case)
    review = _review(turn, case, answer)
    recuse(turn, case.case_id, answer.reviewer, None)
    if case.gold_of is not None:
        return _measured(turn, case, review, answer)
    _keep(turn, case, review, answer, agreed_=_agrees(decision, review.label))
    votes = _votes(turn, case)
    closed = agreed(review.label, votes, case.appealed, turn.settings)
    outcome = OUTCOME_OF[review.label] if closed else Outcome(case.outcome)
    _publish(turn, case, decision, review, outcome, closed=closed)
    ended = {
        "state": CaseState.CLOSED.value,
        "outcome": outcome.value,
        "label": review.label.value,
        "closed_at": turn.now,
    }
    turn.connection.execute(
        update(cases)
        .where(cases.c.case_id == case.case_id)
        .values(votes=len(votes), sequence=case.sequence + (2 if closed else 1), **(ended if closed else {}))
    )
    return _verdict(case, review, closed=closed)


def _publish(
    turn: Turn, case: Case, decision: Decision, review: ReviewVerdict, outcome: Outcome, *, closed: bool
) -> None:
    turn.post(case, review_event(review))
    before = Outcome(case.outcome)
    turn.post(case, update_event(decision, review, case.sequence + 1, before=before, after=outcome))
    turn.record(case, ActionKind.REVIEWED, review.reviewer, review.rationale, review.label)
    if closed:
        turn.post(case, close_event(decision, review, case.sequence + 2, outcome))
        turn.record(case, ActionKind.CLOSED, review.reviewer, label=review.label)


def _measured(turn: Turn, case: Case, review: ReviewVerdict, answer: Answer) -> Verdict:
    """A gold item's answer is kept and counted; nothing is published of it but that it was given."""
    truth = turn.connection.scalar(select(gold.c.label).where(gold.c.decision_uid == case.gold_of))
    _keep(turn, case, review, answer, gold_correct=int(truth == review.label.value))
    turn.record(case, ActionKind.REVIEWED, review.reviewer, review.rationale, review.label)
    turn.connection.execute(
        update(cases)
        .where(cases.c.case_id == case.case_id)
        .values(state=CaseState.CLOSED.value, label=review.label.value, closed_at=turn.now, votes=1)
    )
    return _verdict(case, review, closed=agreed(review.label, [review.label], case.appealed, turn.settings))


def _verdict(case: Case, review: ReviewVerdict, *, closed: bool) -> Verdict:
    return Verdict(
        case_id=case.case_id,
        review_id=review.review_id,
        label=review.label,
        closed=closed,
        outcome=OUTCOME_OF[review.label] if closed else None,
    )


def _review(turn: Turn, case: Case, answer: Answer) -> ReviewVerdict:
    try:
        return ReviewVerdict(
            review_id=uuid5(UUID(case.case_id), f"review/{case.round}/{answer.reviewer}"),
            decision_uid=UUID(case.decision_uid),
            tenant=case.tenant,
            media_id=case.media_id,
            label=answer.label,
            family=answer.family,
            reviewer=answer.reviewer,
            rationale=answer.rationale,
            reviewed_at=moment(turn.now),
        )
    except ValidationError as error:
        raise ValueError(describe(error)) from error


def _keep(
    turn: Turn,
    case: Case,
    review: ReviewVerdict,
    answer: Answer,
    *,
    agreed_: int | None = None,
    gold_correct: int | None = None,
) -> None:
    turn.connection.execute(
        insert(verdicts).values(
            review_id=str(review.review_id),
            case_id=case.case_id,
            round=case.round,
            sequence=case.sequence + 1,
            reviewer=review.reviewer,
            label=review.label.value,
            family=review.family,
            rationale=review.rationale,
            reviewed_at=turn.now,
            token=answer.token,
            agreed=agreed_,
            gold_correct=gold_correct,
        )
    )


def _votes(turn: Turn, case: Case) -> list[Label]:
    """Of this round, with the one just given."""
    given = select(verdicts.c.label).where(verdicts.c.case_id == case.case_id, verdicts.c.round == case.round)
    return [Label(label) for label in turn.connection.scalars(given)]


def _agrees(decision: Decision, label: Label) -> int | None:
    """1 when the final score leans to the label's side; none where the label, or the machine, takes no side."""
    if decision.final_score is None or label not in (Label.GENERATED, Label.PHOTOGRAPH):
        return None
    leans = decision.final_score >= decision.thresholds.uncertain
    return int(leans == (label is Label.GENERATED))
