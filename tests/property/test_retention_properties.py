"""For any archive, policy and moment: what is due and free is unreadable, all else is readable, digests stay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evidence.archive import BY_DECISION
from schemas.decision import Decision, Outcome, Risk
from tests.support.evidence import POLICY, T0, Desk

TENANTS = ("acme", "short")


@dataclass(frozen=True)
class Case:
    """One decision; few contents and panels, so that many are shared."""

    tenant: str
    media: int
    content: int
    panel: int | None
    kind: tuple[Outcome, Risk | None]
    age_days: int
    sequence: int


cases = st.builds(
    Case,
    tenant=st.sampled_from(TENANTS),
    media=st.integers(0, 3),
    content=st.integers(0, 2),
    panel=st.none() | st.integers(0, 1),
    kind=st.sampled_from(
        [
            (Outcome.PASS, Risk.LOW_RISK),
            (Outcome.PASS, Risk.CLEARED),
            (Outcome.ESCALATE, None),
            (Outcome.BLOCK, None),
        ]
    ),
    age_days=st.integers(0, 2500),
    sequence=st.integers(0, 1),
)


@settings(max_examples=60)
@given(st.lists(cases, min_size=1, max_size=8), st.sets(st.tuples(st.sampled_from(TENANTS), st.integers(0, 3))))
def test_apply_makes_unreadable_what_is_due_and_nothing_else(made: list[Case], held: set[tuple[str, int]]) -> None:
    desk = Desk()
    decisions = [(case, decide(desk, case)) for case in made]
    for tenant, media in held:
        desk.holds.set(tenant, f"m{media}", "counsel", "case")
    desk.after(days=0)
    pointers = read_pointers(desk)
    kept = {d.decision_uid for c, d in decisions if (c.tenant, c.media) in held or not is_due(desk, d)}
    needed = {
        (d.admission.tenant, sha256) for _, d in decisions if d.decision_uid in kept for sha256 in named_digests(d)
    }

    desk.apply()

    for _, decision in decisions:
        found = desk.readable(decision)
        assert found.pop("record") is (decision.decision_uid in kept)
        for kind, readable in found.items():
            sha256 = decision.facts.sha256 if decision.facts and kind == "content" else decision.evidence[0].sha256
            assert readable is ((decision.admission.tenant, sha256) in needed)
    assert read_pointers(desk) == pointers
    announced = {(e.tenant, sha256) for e in desk.journal.announced for sha256 in e.sha256s}
    assert not announced & needed
    changes = desk.fuse.count
    assert all(a.obstacle for a in desk.apply())
    assert desk.fuse.count == changes


def decide(desk: Desk, case: Case) -> Decision:
    outcome, risk = case.kind
    return desk.decide(
        f"m{case.media}",
        outcome,
        risk=risk,
        tenant=case.tenant,
        content=b"content %d" % case.content,
        panel=None if case.panel is None else b"panel %d" % case.panel,
        sequence=case.sequence,
        at=T0 - timedelta(days=case.age_days),
    )


def is_due(desk: Desk, decision: Decision) -> bool:
    """Said again, from the policy alone: every record's own period is over."""
    records = desk.archive.get(decision.decision_uid)
    return all(POLICY.period(r.tenant, r.kind).after(r.decided_at) <= desk.now for r in records)


def named_digests(decision: Decision) -> set[str]:
    assert decision.facts is not None
    return {decision.facts.sha256, *(ref.sha256 for ref in decision.evidence)}


def read_pointers(desk: Desk) -> dict[str, bytes]:
    return {o.key: desk.store.objects.read(o.key) for o in desk.store.objects.list(BY_DECISION)}
