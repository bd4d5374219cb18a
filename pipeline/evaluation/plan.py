"""A policy from labelled scores and budgets, and what it would cost.

T1 comes from the budget of generated images that stage 1 may release, T2 from that of photographs that stage 2 may
flag among those that it scores, T3 from that of photographs that could be blocked if the MLLM named a generator
every time. `pipeline.evaluation.cuts` says when a budget is met; where the sample is too small for that, the
threshold allows no error at all, and the policy is marked provisional with what the sample does support.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.detection.calibration import Bools, Calibration, Floats, fit, logit, sigmoid
from pipeline.detection.policy import DEFAULT_THRESHOLDS, Fusion, Policy
from pipeline.detection.reach import reach
from pipeline.evaluation.cascade_load import Exit, Load, Table, blockable, predict
from pipeline.evaluation.cuts import Budget, Cut, cut_above, cut_below
from pipeline.evaluation.intervals import Interval, Rate
from pipeline.evaluation.score_row import ScoreRow, ScoresError
from pipeline.evaluation.stacking import Scored, StackingError, fit_fusion
from schemas.decision import Mode, Thresholds

AS_DELIVERED = "as delivered"
CLEAR_MARGIN = 0.25
"""How far above the least fused score that reaches stage 3, in logit, the MLLM can still clear."""

EVEN_ODDS = 0.5
"""At the bundle's prior an image below is more likely real: none is blocked, and at or above it none is released by
the classifier, whatever the budgets leave room for."""

_Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class PlanError(ScoresError):
    """Scores from which no policy can be derived; the text says what is missing."""


class Budgets(BaseModel):
    """Highest error rates, each with 95 % confidence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fnr1: Annotated[_Share, Field(description="generated images that the classifier releases, of all")] = 0.05
    fpr2: Annotated[_Share, Field(description="real images that stage 2 flags, of those it scores")] = 0.10
    block_fpr: Annotated[_Share, Field(description="real images that could be blocked, of all")] = 0.005


@dataclass(frozen=True, slots=True)
class Blocks:
    """Real and generated images that could be blocked, of all of their class."""

    false: Rate
    true: Rate

    def ppv(self, prevalence: float, *, worst: bool = False) -> float | None:
        """Share of generated images among what could be blocked; None when nothing could.

        `worst`: with the upper limit of the false blocks and the lower limit of the true ones, each at 95 %.
        """
        true, false = self.true.share, self.false.share
        if worst:
            true, false = (
                1.0 - Rate(self.true.total - self.true.count, self.true.total).upper_limit,
                self.false.upper_limit,
            )
        right, wrong = prevalence * true, (1.0 - prevalence) * false
        return right / (right + wrong) if right + wrong > 0.0 else None


@dataclass(frozen=True, slots=True)
class Plan:
    """The policy, the cuts that its thresholds come from, and every image's way out under it.

    `table`, `exits` and `p12` are of the images planned on; with fitted weights `p12` is held out by source.
    `notes` say what was fitted, chosen or left as it was.
    """

    policy: Policy
    t1: Cut
    t2: Cut
    t3: Cut
    notes: tuple[str, ...]
    table: Table
    exits: tuple[Exit, ...]
    p12: Floats

    def load(self, prevalence: float) -> Load:
        """What each stage and the reviewers would see."""
        return predict(self.table, self.exits, self.p12, self.policy, prevalence)

    def leaving(self, way: Exit, *, synthetic: bool) -> Rate:
        """How many images of a class leave that way."""
        mine = np.flatnonzero(self.table.synthetic == synthetic)
        return Rate(sum(self.exits[i] is way for i in mine), len(mine))

    def released(self, *, synthetic: bool) -> Rate:
        """How many images of a class pass before stage 3; for generated ones, those that the fleet misses."""
        ways = [self.leaving(way, synthetic=synthetic) for way in (Exit.RELEASED, Exit.LOW_RISK, Exit.ALONE)]
        return Rate(sum(way.count for way in ways), ways[0].total)

    def blocks(self) -> Blocks:
        """What an MLLM that names a generator every time would block."""
        third = np.array([way is Exit.STAGE_3 for way in self.exits], bool)
        hit, synthetic = third & blockable(self.p12, self.policy), self.table.synthetic
        right = Rate(int((hit & synthetic).sum()), int(synthetic.sum()))
        return Blocks(Rate(int((hit & ~synthetic).sum()), int((~synthetic).sum())), right)


def make_plan(
    rows: Iterable[ScoreRow],
    budgets: Budgets,
    mode: Mode,
    base: Policy,
    *,
    stacked: bool = False,
    variant: str = AS_DELIVERED,
) -> Plan:
    """Derive a policy. The same rows in the same order give the same policy.

    Args:
        rows: scores of images that no part of the bundle was fitted on.
        budgets: highest error rates.
        mode: of the policy.
        base: gives prior, fusion weights and the MLLM's share.
        stacked: fit the fusion weights on these rows, cross-fitted by source.
        variant: of the rows that count; each image once.

    Raises:
        PlanError: a class, a score or a second source is missing, or an image is there twice.
    """
    table = Table.of(_once(rows, variant))
    real, synthetic = ~table.synthetic, table.synthetic
    if not real.any() or not synthetic.any():
        raise PlanError(f"real images: {real.sum()}, generated: {synthetic.sum()}; a plan needs both classes")
    t1 = _t1(table, budgets.fnr1)
    reached = ~np.isnan(table.s2) & ~np.isnan(table.s1) & ((mode is Mode.FUSED) | (table.s1 >= t1.value))
    fusion, p12, notes = _fusion(table, reached, mode, base, stacked=stacked)
    draft = _with(base, mode, fusion, _first_thresholds(base.thresholds, mode, t1.value))
    p12 = table.fused(draft) if p12 is None else p12
    stage2 = np.where(reached, p12, np.nan) if mode is Mode.FUSED else table.stage2_scores(draft)
    t2 = _t2(table, stage2, reached, budgets.fpr2)
    third = reached & (stage2 >= t2.value)
    t3 = _t3(table, np.where(third, p12, -np.inf), budgets.block_fpr)
    thresholds = _clearable(_with(base, mode, fusion, _all_thresholds(draft.thresholds, t2.value, t3.value)), notes)
    cuts = [cut.budget for cut in (t1, t2, t3) if not cut.budget.supported]
    policy = _versioned(_with(base, mode, fusion, thresholds), cuts)
    return Plan(policy, t1, t2, t3, tuple(notes), table, table.exits(policy, stage2), p12)


def _once(rows: Iterable[ScoreRow], variant: str) -> Iterable[ScoreRow]:
    seen: set[str] = set()
    others: set[str] = set()
    for row in rows:
        if row.variant != variant:
            others.add(row.variant)
        elif row.key in seen:
            raise PlanError(f"{row.key}: twice in variant {variant!r}; an image counts once")
        else:
            seen.add(row.key)
            yield row
    if not seen:
        raise PlanError(f"variant {variant!r}: no rows; the file has {', '.join(sorted(others)) or 'none at all'}")


def _t1(table: Table, rate: float) -> Cut:
    """A generated image that the classifier could not score counts as released."""
    synthetic = table.synthetic
    s1 = np.nan_to_num(table.s1, nan=-np.inf)
    cut = cut_below("FNR of stage 1", s1[synthetic], s1[~synthetic], rate, _sources(table, synthetic))
    return _at_even_odds(cut, s1[synthetic] < EVEN_ODDS, min) if cut.value > EVEN_ODDS else cut


def _t2(table: Table, stage2: Floats, reached: Bools, rate: float) -> Cut:
    real, synthetic = reached & ~table.synthetic, reached & table.synthetic
    return cut_above("FPR of stage 2", stage2[real], stage2[synthetic], rate, _sources(table, real))


def _t3(table: Table, p12: Floats, rate: float) -> Cut:
    real = ~table.synthetic
    cut = cut_above("FPR of blocks", p12[real], p12[~real], rate, _sources(table, real))
    if cut.value < EVEN_ODDS:
        return _at_even_odds(cut, p12[real] >= EVEN_ODDS, max)
    if cut.value >= 1.0 and cut.budget.errors.count:
        raise PlanError(
            f"{cut.budget.errors.count} real images have the highest fused score there is: no threshold keeps them from"
            " being blocked; look at these images and their labels, or give other fusion weights"
        )
    return cut


def _at_even_odds(cut: Cut, errors: Bools, bound: Callable[[float, float], float]) -> Cut:
    """The cut at the bound that it lies beyond, its intervals bounded alike."""

    def bounded(interval: Interval) -> Interval:
        return Interval(bound(interval.low, EVEN_ODDS), bound(interval.high, EVEN_ODDS))

    budget = replace(cut.budget, errors=Rate(int(errors.sum()), len(errors)))
    by_source = bounded(cut.by_source) if cut.by_source else None
    return Cut(EVEN_ODDS, budget, bounded(cut.interval), by_source)


def _sources(table: Table, chosen: Bools) -> tuple[str, ...]:
    return tuple(table.source[i] for i in np.flatnonzero(chosen))


def _fusion(
    table: Table, reached: Bools, mode: Mode, base: Policy, *, stacked: bool
) -> tuple[Fusion, Floats | None, list[str]]:
    """Weights and the calibration of stage 2, fitted on what reaches it; held-out scores where weights were fitted."""
    fusion, p12, notes = base.fusion, None, []
    if stacked:
        chosen = np.flatnonzero(reached)
        where = tuple(table.codec[i] for i in chosen)
        scored = Scored(table.s1[chosen], table.s2[chosen], table.synthetic[chosen], where, _sources(table, reached))
        try:
            found = fit_fusion(scored, base.fusion)
        except StackingError as error:
            raise PlanError(
                f"fusion weights, among the {len(chosen)} images that reach stage 2: {error}, or keep the given weights"
            ) from error
        fusion = found.fusion
        p12 = table.fused(_with(base, mode, fusion, DEFAULT_THRESHOLDS))
        p12[chosen] = found.held_out
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in found.log_loss.items())
        notes.append(f"fusion weights: {found.chosen}; log loss on sources held out: {losses}")
    if mode is Mode.STRICT:
        calibration, note = _stage2_calibration(table, reached, base.fusion.prior)
        fusion = fusion.model_copy(update={"stage2": calibration})
        notes.append(note)
    return fusion, p12, notes


def _stage2_calibration(table: Table, reached: Bools, prior: float) -> tuple[Calibration | None, str]:
    labels = table.synthetic[reached]
    counts = f"{int(labels.sum())} generated and {int((~labels).sum())} real images that reached stage 2"
    logits = np.array([logit(s) for s in table.s2[reached].tolist()])
    try:
        calibration = fit(logits, labels, prior)  # no table: on its level parts T2 could not tell images apart
    except ValueError as error:
        return None, f"stage 2 keeps its score as it is: no calibration on {counts}: {error}"
    return calibration, f"stage 2 calibrated on {counts}"


def _first_thresholds(base: Thresholds, mode: Mode, t1: float) -> Thresholds:
    if mode is Mode.FUSED:
        return base.model_copy(update={"t1": 0.0, "t1_alone": t1})
    return base.model_copy(update={"t1": t1, "t1_alone": None, "priority": max(base.priority, t1)})


def _all_thresholds(first: Thresholds, t2: float, block: float) -> Thresholds:
    """What the MLLM's verdicts would have to tell, `t3_clear` and `uncertain`, stays where it was, below the block."""
    uncertain = min(first.uncertain, block)
    update = {"t2": t2, "t3_block": block, "p12_block": block, "uncertain": uncertain}
    return first.model_copy(update={**update, "t3_clear": min(first.t3_clear, uncertain)})


def _clearable(policy: Policy, notes: list[str]) -> Thresholds:
    """The policy's thresholds, `t3_clear` raised where the MLLM's share could clear nothing that arrives."""
    found = reach(policy)
    thresholds, down = policy.thresholds, found.shift[0]
    if found.clear is not None or not policy.fusion.mllm_clip[0]:
        return thresholds
    clear = min(thresholds.uncertain, sigmoid(logit(found.arriving.low) + down + CLEAR_MARGIN))
    if clear >= thresholds.t3_block:
        notes.append("t3_clear is left: blocks begin so low that nothing could be cleared below them")
        return thresholds
    notes.append(f"t3_clear raised from {thresholds.t3_clear:g} to {clear:.4f}: below it the MLLM could clear nothing")
    return thresholds.model_copy(update={"t3_clear": clear})


def _with(base: Policy, mode: Mode, fusion: Fusion, thresholds: Thresholds) -> Policy:
    return Policy(version=base.version, mode=mode, thresholds=thresholds, fusion=fusion)


def _versioned(policy: Policy, unsupported: list[Budget]) -> Policy:
    """The version is a digest of all the rest."""
    why = "; ".join(map(str, unsupported)) or None
    content = policy.model_copy(update={"provisional": why})
    digest = hashlib.sha256(content.model_dump_json(exclude={"version"}).encode()).hexdigest()
    return content.model_copy(update={"version": f"plan-{policy.mode}-{digest[:12]}"})
