from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detection.policy import Policy
from pipeline.evaluation.cascade_load import Exit
from pipeline.evaluation.cuts import cut_above, cut_below
from pipeline.evaluation.plan import Budgets, PlanError, make_plan
from schemas.decision import Mode
from tests.support.score_rows import row

BASE = Policy(version="base")
# Coarse values make ties; 0 and 1 are the ends where thresholds run out of room.
scores = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0.0, 1.0)
shares = st.floats(0.001, 0.6)
columns = st.lists(st.tuples(st.none() | scores, st.none() | scores, st.integers(0, 3)), min_size=1, max_size=60)
samples = st.lists(scores, min_size=1, max_size=80).map(np.array)


@st.composite
def tables(draw):
    real, synthetic = draw(columns), draw(columns)
    return [
        row(f"{label}-{i}", synthetic=label, s1=s1, s2=None if s1 is None else s2, source=f"{label}-{source}")
        for label, members in ((False, real), (True, synthetic))
        for i, (s1, s2, source) in enumerate(members)
    ]


def planned(rows, budgets, mode):
    """None where a real image has the highest fused score there is: then no threshold, and no plan, is possible."""
    try:
        return make_plan(rows, budgets, mode, BASE)
    except PlanError:
        assert any(not r.synthetic and max(r.classifier or 0.0, r.spectral or 0.0) == 1.0 for r in rows)
        return None


@settings(max_examples=40)
@given(tables(), shares, shares, shares, st.sampled_from(Mode))
def test_a_plan_keeps_the_budgets_that_it_calls_supported(rows, fnr1, fpr2, block_fpr, mode):
    plan = planned(rows, Budgets(fnr1=fnr1, fpr2=fpr2, block_fpr=block_fpr), mode)
    if plan is None:
        return
    policy = Policy.model_validate_json(plan.policy.model_dump_json())
    assert policy == plan.policy, "ordered, within [0, 1], and as the file will hold it"
    t1 = policy.thresholds.t1_alone if mode is Mode.FUSED else policy.thresholds.t1
    synthetic = [r for r in rows if r.synthetic]
    missed = sum(r.classifier is None or r.classifier < t1 for r in synthetic)
    assert missed == plan.t1.budget.errors.count
    assert not plan.t1.budget.supported or missed <= fnr1 * len(synthetic)
    assert plan.blocks().false == plan.t3.budget.errors
    assert (policy.provisional is None) == all(c.budget.supported for c in (plan.t1, plan.t2, plan.t3))
    for outcome in Exit:
        assert 0 <= plan.leaving(outcome, synthetic=True).count <= len(synthetic)


@settings(max_examples=25)
@given(tables(), shares, shares, shares, shares)
def test_a_wider_budget_never_gives_a_stricter_threshold(rows, a, b, c, d):
    (tight, wide), (tight_block, wide_block) = sorted((a, b)), sorted((c, d))
    first = planned(rows, Budgets(fnr1=tight, fpr2=0.1, block_fpr=tight_block), Mode.FUSED)
    second = planned(rows, Budgets(fnr1=wide, fpr2=0.1, block_fpr=wide_block), Mode.FUSED)
    if first is None or second is None:
        return
    assert first.policy.thresholds.t1_alone <= second.policy.thresholds.t1_alone
    assert first.policy.thresholds.t3_block >= second.policy.thresholds.t3_block


@settings(max_examples=60)
@given(samples, samples, shares, shares)
def test_cuts_are_ordered_by_their_budgets(errors, others, a, b):
    tight, wide = sorted((a, b))
    names = ["a"] * len(errors)
    assert cut_below("x", errors, others, tight, names).value <= cut_below("x", errors, others, wide, names).value
    assert cut_above("x", errors, others, tight, names).value >= cut_above("x", errors, others, wide, names).value


@settings(max_examples=60)
@given(samples, samples, shares)
def test_a_cut_allows_no_more_errors_than_it_must(errors, others, rate):
    below = cut_below("x", errors, others, rate, ["a"] * len(errors))
    assert 0.0 <= below.value <= 1.0
    assert below.budget.errors.count == (errors < below.value).sum() <= rate * len(errors)
    above = cut_above("x", errors, others, rate, ["a"] * len(errors))
    assert 0.0 <= above.value <= 1.0
    assert above.budget.errors.count <= max(rate * len(errors), (errors == 1.0).sum())


@settings(max_examples=10)
@given(tables(), st.floats(0.0, 1.0), st.sampled_from(Mode))
def test_shares_of_the_load_are_shares_and_nested(rows, prevalence, mode):
    plan = planned(rows, Budgets(), mode)
    if plan is None:
        return
    load = plan.load(prevalence)
    for share in (load.stage2, load.stage3, load.escalated_most, load.escalated_least, load.blocked_most):
        assert -1e-9 <= share.value <= 1.0 + 1e-9
        assert share.interval is None or not math.isnan(share.interval.low)
    assert load.blocked_most.value <= load.stage3.value + 1e-9 <= load.stage2.value + 2e-9
    assert load.escalated_least.value <= load.escalated_most.value + 1e-9
