"""Claims, leases, verdicts and appeals in any order, against a model of a few lines."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from schemas.decision import Outcome
from schemas.ocsf import decode_finding
from schemas.review import Label
from schemas.topics import DECISION_TOPICS
from tests.support.reviewing import Site, uid
from workers.console.domain.errors import AlreadyDecided, NotAppealable, NotYours, StaleLease
from workers.console.domain.models import CaseState, Claim
from workers.console.domain.outcomes import OUTCOME_OF, needed

REVIEWERS = ("ann", "ben", "cid", "dan")
reviewers = st.sampled_from(REVIEWERS)


@dataclass
class Model:
    """What is known of one case."""

    rank: float
    state: CaseState
    outcome: Outcome
    appealed: bool = False
    votes: list[Label] = field(default_factory=list)
    never: set[str] = field(default_factory=set)
    held_until: dict[str, float] = field(default_factory=dict)
    lease: tuple[str, str, float] | None = None
    closes: int = 0
    events: int = 0

    def leased(self, now: float) -> bool:
        return self.lease is not None and self.lease[2] > now

    def offered(self, reviewer: str, now: float) -> bool:
        free = self.state is CaseState.OPEN and not self.leased(now)
        return free and reviewer not in self.never and self.held_until.get(reviewer, 0.0) <= now


class Queue(RuleBasedStateMachine):
    claims: Bundle[Claim] = Bundle("claims")

    @initialize(scores=st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=3, max_size=6))
    def begin(self, scores: list[float]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.site = Site(Path(self.folder.name))
        self.model: dict[str, Model] = {}
        for score in scores:
            self.decide_by_machine(Outcome.ESCALATE, score)
            self.site.clock.advance(100.0)

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self.site.engine.dispose()
            self.folder.cleanup()

    @property
    def now(self) -> float:
        return self.site.clock.wall_s()

    @rule(outcome=st.sampled_from(Outcome), score=st.sampled_from([0.1, 0.5, 0.9]))
    def more_decisions(self, outcome: Outcome, score: float) -> None:
        self.decide_by_machine(outcome, score)

    def decide_by_machine(self, outcome: Outcome, score: float) -> None:
        case_id = self.site.held(len(self.model), outcome=outcome, score=score)
        state = CaseState.OPEN if outcome is Outcome.ESCALATE else CaseState.MACHINE
        urgency = self.site.service.case(case_id, None).row.urgency
        ageing_s = self.site.settings.priority.ageing_s
        self.model[case_id] = Model(rank=self.now - urgency * ageing_s, state=state, outcome=outcome)

    @rule(seconds=st.sampled_from([1.0, 100.0, 299.0, 300.0, 14_400.0]))
    def wait(self, seconds: float) -> None:
        self.site.clock.advance(seconds)

    @rule(target=claims, reviewer=reviewers)
    def claim(self, reviewer: str) -> Claim | MultipleResults[Claim]:
        mine = {i: m for i, m in self.model.items() if m.leased(self.now) and m.lease and m.lease[0] == reviewer}
        offered = mine or {i: m for i, m in self.model.items() if m.offered(reviewer, self.now)}
        claim = self.site.service.claim(reviewer, None)
        expected = min(offered, key=lambda i: (offered[i].rank, i)) if offered else None
        assert (claim.case_id if claim else None) == expected
        return self._leased(claim)

    @rule(target=claims, reviewer=reviewers, number=st.integers(0, 5))
    def claim_by_name(self, reviewer: str, number: int) -> Claim | MultipleResults[Claim]:
        if number >= len(self.model):
            return multiple()
        case_id, case = list(self.model.items())[number]
        other = case.leased(self.now) and case.lease is not None and case.lease[0] != reviewer
        try:
            claim = self.site.service.claim(reviewer, None, case_id)
        except AlreadyDecided:
            assert case.state is not CaseState.OPEN
            return multiple()
        except NotYours:
            assert other or reviewer in case.never
            return multiple()
        assert case.state is CaseState.OPEN
        assert not other
        assert reviewer not in case.never
        return self._leased(claim)

    def _leased(self, claim: Claim | None) -> Claim | MultipleResults[Claim]:
        if claim is not None:
            until = self.now + self.site.settings.lease_s
            self.model[claim.case_id].lease = (claim.reviewer, claim.token, until)
        return multiple() if claim is None else claim

    def _good(self, claim: Claim, reviewer: str) -> bool:
        case = self.model[claim.case_id]
        return case.leased(self.now) and case.lease is not None and case.lease[:2] == (reviewer, claim.token)

    @rule(claim=claims, label=st.sampled_from(Label), reviewer=reviewers)
    def decide(self, claim: Claim, label: Label, reviewer: str) -> None:
        case = self.model[claim.case_id]
        good = self._good(claim, reviewer)
        try:
            verdict = self.site.service.decide(claim.token, label, "", reviewer=reviewer)
        except (StaleLease, NotYours, AlreadyDecided):
            assert not good
            return
        assert good
        case.votes.append(label)
        case.never.add(reviewer)
        case.lease = None
        enough = case.votes.count(label) >= needed(label, case.votes, case.appealed, self.site.settings)
        assert verdict.closed == enough
        case.events += 1
        if enough:
            case.state, case.outcome, case.closes, case.events = (
                CaseState.CLOSED,
                OUTCOME_OF[label],
                case.closes + 1,
                case.events + 1,
            )

    @rule(claim=claims, reviewer=reviewers, what=st.sampled_from(["skip", "release", "renew"]))
    def use(self, claim: Claim, reviewer: str, what: str) -> None:
        case, good = self.model[claim.case_id], self._good(claim, reviewer)
        service = self.site.service
        try:
            if what == "skip":
                service.skip(claim.token, "why", reviewer=reviewer)
            elif what == "release":
                service.release(claim.token, reviewer=reviewer)
            else:
                service.renew(claim.token, reviewer=reviewer)
        except (StaleLease, NotYours, AlreadyDecided):
            assert not good
            return
        assert good
        if what == "renew":
            case.lease = (reviewer, claim.token, self.now + self.site.settings.lease_s)
        else:
            case.lease = None
        if what == "skip":
            case.held_until[reviewer] = self.now + self.site.settings.skip_hold_s

    @rule(number=st.integers(0, 5), actor=reviewers)
    def appeal(self, number: int, actor: str) -> None:
        if number >= len(self.model):
            return
        case_id, case = list(self.model.items())[number]
        try:
            self.site.service.appeal(uid(case_id), None, actor, "why")
        except NotAppealable:
            assert case.state is CaseState.OPEN
            return
        assert case.state is not CaseState.OPEN
        urgency = self.site.service.case(case_id, None).row.urgency
        case.rank = self.now - urgency * self.site.settings.priority.ageing_s
        case.state, case.appealed, case.votes = CaseState.OPEN, True, []
        case.never.add(actor)

    @invariant()
    def the_queue_is_the_model(self) -> None:
        if not hasattr(self, "site"):
            return
        open_ = {i: m for i, m in self.model.items() if m.state is CaseState.OPEN}
        rows = self.site.service.queue(None).rows
        assert [row.case_id for row in rows] == sorted(open_, key=lambda i: (open_[i].rank, i))
        for row in rows:
            case = open_[row.case_id]
            assert (row.outcome, row.votes, row.lease is not None) == (
                case.outcome,
                len(case.votes),
                case.leased(self.now),
            )

    @invariant()
    def what_is_published_follows(self) -> None:
        if not hasattr(self, "site"):
            return
        topics = {topic.value for topic in DECISION_TOPICS.values()}
        seen: dict[str, list[tuple[int, str]]] = {case_id: [] for case_id in self.model}
        for topic, value in self.site.waiting():
            if topic in topics:
                finding = decode_finding(value)
                seen[str(finding.finding_info.uid)].append((finding.metadata.sequence, finding.activity_name))
        for case_id, events in seen.items():
            assert [sequence for sequence, _ in events] == list(range(1, self.model[case_id].events + 1))
            assert sum(activity == "Close" for _, activity in events) == self.model[case_id].closes


Queue.TestCase.settings = settings(max_examples=30, stateful_step_count=30)
TestQueue = Queue.TestCase
