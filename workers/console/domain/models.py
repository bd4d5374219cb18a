"""What the pages are given: frozen views, made from the database at one moment."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from schemas.decision import Decision, Outcome, Risk
from schemas.review import ActionKind, Label
from schemas.types import StageName

Tenants = frozenset[str] | None
"""The tenants whose cases may be seen; None: all."""


class View(BaseModel):
    """Of one moment; ages and priorities are as of the call."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CaseState(StrEnum):
    """`machine`: passed or blocked without a person; `open`: waits for people; `closed`: people decided."""

    MACHINE = "machine"
    OPEN = "open"
    CLOSED = "closed"


class Claim(View):
    """The right to decide a case until `until`; `token` is the proof. `renew` it while the page is open."""

    case_id: str
    token: str
    reviewer: str
    until: datetime


class Lease(View):
    """Who holds a case, as others may see it: without the token."""

    reviewer: str
    until: datetime


class CaseRow(View):
    """One line of a list.

    `outcome` is the one in force: the machine's until people close the case. `urgency` lies in [0, 1]; `priority` is
    urgency plus age in units of the ageing time, see priority.py. `votes` counts the reviews of the round that is open.
    """

    case_id: str
    decision_uid: UUID
    tenant: str
    media_id: str
    source: str | None
    uri: str
    state: CaseState
    outcome: Outcome
    risk: Risk | None
    stage_exited: StageName
    score: float | None
    reason: str
    detail: str
    decided_at: datetime
    opened_at: datetime
    age_s: float
    urgency: float
    priority: float
    lease: Lease | None
    votes: int
    skips: int
    appealed: bool
    label: Label | None
    closed_at: datetime | None


class CasePage(View):
    """One page of a list; `number` counts from 1, `more` says that there is another."""

    rows: tuple[CaseRow, ...]
    number: int
    more: bool


class Review(View):
    """One reviewer's answer. `round` counts from 0 and rises with each appeal."""

    review_id: UUID
    reviewer: str
    label: Label
    family: str | None
    rationale: str
    reviewed_at: datetime
    round: int


class Action(View):
    """One line of a case's history. `detail` is a reason that a person typed; `label` is that of a review."""

    kind: ActionKind
    actor: str
    at: datetime
    detail: str
    label: Label | None


class CaseView(View):
    """Everything about a case but its pictures, which lie in the content store.

    `reviews` are those of finished rounds: a second reviewer does not see the first one's answer. `history` has no
    labels of the open round either. `needed` is how many reviewers must agree, for the label that needs most.
    """

    row: CaseRow
    decision: Decision
    reviews: tuple[Review, ...]
    history: tuple[Action, ...]
    needed: int


class Verdict(View):
    """What a decision did: `closed` with `outcome`, or the case waits for another reviewer."""

    case_id: str
    review_id: UUID
    label: Label
    closed: bool
    outcome: Outcome | None


class ReviewerStats(View):
    """How one reviewer works. Rates are None where nothing was counted.

    `agreed` is of reviews whose label has the side (synthetic or not) to which the machine's score leaned.
    """

    reviewer: str
    reviews: int
    skips: int
    agreed: float | None
    gold_answers: int
    gold_correct: float | None


class Backlog(View):
    """What waits for people, and what for Kafka. Age in seconds, 0 of an empty queue."""

    waiting: int
    oldest_age_s: float
    unpublished: int


class GoldItem(View):
    """A case of certain label; `answers` of reviewers to it, `correct` of them right."""

    decision_uid: UUID
    tenant: str
    media_id: str
    label: Label
    added_by: str
    added_at: datetime
    answers: int
    correct: int


class GoldAnswers(View):
    """How often a reviewer said `said` of gold items that are `truth`."""

    reviewer: str
    truth: Label
    said: Label
    count: int


class QueueStats(View):
    """The queue now, and the last day. Ages in seconds."""

    waiting: int
    leased: int
    appeals: int
    oldest_age_s: float
    median_age_s: float
    opened_last_day: int
    closed_last_day: int
    agreed: float | None
    labels_last_day: dict[Label, int]
    reviewers: tuple[ReviewerStats, ...]
    unpublished: int


class FlowCell(View):
    """How many media left the cascade at this stage with this outcome."""

    stage: StageName
    outcome: Outcome
    count: int


class FlowHour(View):
    """The machine's decisions of one hour, which begins at `at`."""

    at: datetime
    outcome: Outcome
    count: int


class ScoreBin(View):
    """Final scores in [low, low + 0.05), the last bin with 1.0."""

    low: float
    outcome: Outcome
    count: int


class FlowStats(View):
    """What the machine decided since `since`, for the dashboard."""

    since: datetime
    cells: tuple[FlowCell, ...]
    hours: tuple[FlowHour, ...]
    scores: tuple[ScoreBin, ...]
    unscored: int
