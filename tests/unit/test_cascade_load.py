"""The ways out that `plan` counts are those that the stages take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.detection.policy import Fusion, Policy
from pipeline.evaluation.cascade_load import Exit, blockable
from pipeline.evaluation.plan import Budgets, make_plan
from pipeline.streaming.stage import Emit
from schemas.decision import Decision, Mode, ReasonCode, Risk
from schemas.decision import Outcome as Verdict
from schemas.media import AnomalousMedia
from tests.support.cases import suspect
from tests.support.entries import item
from tests.support.score_rows import rows
from tests.support.worker_stages import PANEL_PNG, FakedSpectral, analysis, png
from workers.spectral import stage as spectral_stage

ROWS = rows(130, 70)


@pytest.mark.parametrize("mode", Mode)
def test_the_stages_take_the_ways_that_are_counted(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral_stage, "render_panel", lambda image, analysis: PANEL_PNG)
    fitted = make_plan(ROWS, Budgets(), mode, Policy(version="base"), stacked=True).policy
    plan = make_plan(ROWS, Budgets(), mode, fitted)  # by the weights themselves, not by scores held out
    faked = FakedSpectral(plan.policy)
    taken = []
    for row in ROWS:
        if row.classifier is None:
            taken.append(Exit.FAILED)
        elif plan.policy.stage1_exit(row.classifier):
            taken.append(Exit.RELEASED)
        else:
            found = analysis(row.spectral, None if row.spectral is not None else "flat")
            faked.analyser.gives = replace(found, stratum=row.stratum)
            taken.append(_way(faked, row.classifier))
    assert Counter(taken) == Counter(plan.exits)
    assert taken == list(plan.exits)
    assert {Exit.LOW_RISK, Exit.NOT_APPLICABLE, Exit.STAGE_3} < set(taken)


def _way(faked: FakedSpectral, classifier: float) -> Exit:
    outcome = faked.process(item(tenant="acme", value=suspect(classifier, data=png())))
    assert isinstance(outcome, Emit)
    record = outcome.outputs[0].record
    if isinstance(record, AnomalousMedia):
        return Exit.STAGE_3
    assert isinstance(record, Decision)
    unmeasured = record.reasons[0].code is ReasonCode.SPECTRAL_NOT_APPLICABLE
    if record.outcome is Verdict.PASS:
        assert record.risk is Risk.LOW_RISK
        return Exit.ALONE if unmeasured else Exit.LOW_RISK
    assert unmeasured
    return Exit.NOT_APPLICABLE


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_one_cut_says_what_the_policy_says_of_each(weight):
    policy = Policy(version="t", fusion=Fusion(mllm_weight=weight))
    scores = np.append(np.linspace(0.0, 1.0, 401), np.nan)
    one_by_one = [policy.may_block(None if np.isnan(p) else float(p)) for p in scores]
    assert blockable(scores, policy).tolist() == one_by_one
