"""`mediasieve plan`: thresholds from labelled scores and budgets of errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.detection.policy import Policy
from pipeline.evaluation.cascade_load import Exit, Load, Share
from pipeline.evaluation.cuts import Cut
from pipeline.evaluation.intervals import Interval, Rate
from pipeline.evaluation.plan import AS_DELIVERED, Blocks, Budgets, Plan, make_plan
from pipeline.evaluation.score_row import read_rows
from schemas.decision import Mode
from workers.cli.common import Json, print_json

MILLION = 1_000_000
_DEFAULTS = Budgets()


def share(text: str | float) -> float:
    """`5%` or `0.05` as 0.05.

    Raises:
        typer.BadParameter: neither, or not between 0 and 1, both excluded.
    """
    if isinstance(text, float):
        return text
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: give a share such as 5% or 0.05") from error
    if not 0.0 < value < 1.0:
        raise typer.BadParameter(f"{text!r}: give a share between 0 and 1, such as 5% or 0.05")
    return value


def plan(
    scores: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Labelled scores, one JSON row a line.")],
    *,
    mode: Annotated[Mode, typer.Option(help="How stage 2 decides: by its own score, or by both together.")],
    fnr1: Annotated[
        float, typer.Option(parser=share, help="Most generated images that the classifier may release.")
    ] = _DEFAULTS.fnr1,
    fpr2: Annotated[
        float, typer.Option(parser=share, help="Most real images that stage 2 may flag, of those it scores.")
    ] = _DEFAULTS.fpr2,
    block_fpr: Annotated[
        float, typer.Option(parser=share, help="Most real images that may be blocked at worst.")
    ] = _DEFAULTS.block_fpr,
    prevalence: Annotated[float, typer.Option(parser=share, help="Share of generated images in the traffic.")] = 0.01,
    fit_fusion: Annotated[
        bool, typer.Option("--fit-fusion", help="Fit the fusion weights on these scores too.")
    ] = False,
    base: Annotated[
        Path | None, typer.Option(help="Policy file that gives prior, weights and the MLLM's share.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Which rows count.")] = AS_DELIVERED,
    out: Annotated[Path | None, typer.Option(help="Policy file to write.")] = None,
    json: Json = False,
) -> None:
    """Derive a policy from labelled scores, and predict what it costs.

    A budget counts as met when the one-sided 95 % upper limit of the error rate is within it. One that so few images
    cannot support gives a threshold without any error on them, and a policy marked provisional that says so.

    Example: mediasieve plan scores.jsonl --mode fused --block-fpr 0.5% --out policy.json
    """
    budgets = Budgets(fnr1=fnr1, fpr2=fpr2, block_fpr=block_fpr)
    start = Policy.load(base) if base else Policy(version="base")
    found = make_plan(read_rows(scores), budgets, mode, start, stacked=fit_fusion, variant=variant)
    if out:
        out.write_text(found.policy.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if json:
        print_json(as_json(found, prevalence))
    else:
        _print(found, prevalence, out)


def as_json(found: Plan, prevalence: float) -> dict[str, Any]:
    """The whole plan as one object."""
    load, blocks = found.load(prevalence), found.blocks()
    cuts = (("t1", found.t1), ("t2", found.t2), ("t3", found.t3))
    return {
        "policy": found.policy.model_dump(mode="json"),
        "cuts": {name: _cut_json(cut) for name, cut in cuts},
        "exits": {
            kind: {way.name.lower(): _rate_json(found.leaving(way, synthetic=synthetic)) for way in Exit}
            for kind, synthetic in (("real", False), ("generated", True))
        },
        "passed_before_stage3": {
            kind: _rate_json(found.released(synthetic=synthetic))
            for kind, synthetic in (("real", False), ("generated", True))
        },
        "prevalence": prevalence,
        "load": {
            "stage2": _share_json(load.stage2),
            "stage3": _share_json(load.stage3),
            "escalated_most": _share_json(load.escalated_most),
            "escalated_least": _share_json(load.escalated_least),
            "blocked_most": _share_json(load.blocked_most),
        },
        "blocks": {
            "false": _rate_json(blocks.false),
            "true": _rate_json(blocks.true),
            "false_per_million": _false_per_million(blocks, prevalence),
            "ppv": blocks.ppv(prevalence),
            "ppv_worst": blocks.ppv(prevalence, worst=True),
        },
        "reviews_per_million": [MILLION * load.escalated_least.value, MILLION * load.escalated_most.value],
        "notes": found.notes,
    }


def _cut_json(cut: Cut) -> dict[str, Any]:
    budget = cut.budget
    return {
        "value": cut.value,
        "interval": _ends(cut.interval),
        "by_source": _ends(cut.by_source),
        "budget": budget.allowed,
        "errors": _rate_json(budget.errors),
        "supported": budget.supported,
        "images_needed": budget.images_needed,
    }


def _share_json(value: Share) -> dict[str, Any]:
    return {"share": value.value, "by_source": _ends(value.interval)}


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _rate_json(rate: Rate) -> dict[str, Any]:
    share_of_all = rate.share if rate.total else None
    return {
        "count": rate.count,
        "total": rate.total,
        "share": share_of_all,
        "interval": _ends(rate.interval),
        "upper_limit": rate.upper_limit,
    }


def _print(found: Plan, prevalence: float, out: Path | None) -> None:
    console = Console(soft_wrap=True, highlight=False)
    load = found.load(prevalence)
    for table in (_thresholds(found), _exits(found), _load(load)):
        console.print(table)
    for line in _consequences(found, load):
        console.print(line, markup=False)
    for note in found.notes:
        console.print(note, style="dim", markup=False)
    if found.policy.provisional:
        console.print(f"PROVISIONAL: {found.policy.provisional}", style="yellow", markup=False)
    if out:
        console.print(f"wrote {out} ({found.policy.version})", markup=False)


def _thresholds(found: Plan) -> Table:
    table = Table(title=f"thresholds, mode {found.policy.mode}", title_justify="left")
    for name in ("threshold", "value", "95 %, images", "95 %, sources", "budget", "errors", "at most (95 %)"):
        table.add_column(name)
    first = "t1_alone" if found.policy.mode is Mode.FUSED else "t1"
    for name, cut in ((first, found.t1), ("t2", found.t2), ("t3_block, p12_block", found.t3)):
        errors, budget = cut.budget.errors, f"{cut.budget.name} {cut.budget.allowed:.2%}"
        limit = f"{errors.upper_limit:.2%}{'' if cut.budget.supported else ' !'}"
        ends = [_range(cut.interval, ".3f"), _range(cut.by_source, ".3f")]
        table.add_row(name, f"{cut.value:g}", *ends, budget, f"{errors.count}/{errors.total}", limit)
    return table


def _exits(found: Plan) -> Table:
    table = Table(title="ways out", title_justify="left")
    for name in ("", "real", "generated"):
        table.add_column(name)
    for way in Exit:
        table.add_row(way.value, *(str(found.leaving(way, synthetic=kind)) for kind in (False, True)))
    return table


def _load(load: Load) -> Table:
    table = Table(title=f"load at {load.prevalence:.2%} generated", title_justify="left")
    for name in ("share of the traffic", "predicted", "95 %, sources"):
        table.add_column(name)
    for name, value in (
        ("stage 2", load.stage2),
        ("stage 3", load.stage3),
        ("people, without an MLLM", load.escalated_most),
        ("people, an MLLM that always agrees", load.escalated_least),
        ("blocked at most", load.blocked_most),
    ):
        table.add_row(name, f"{value.value:.2%}", _range(value.interval, ".2%"))
    return table


def _consequences(found: Plan, load: Load) -> list[str]:
    blocks = found.blocks()
    reviews = [f"{MILLION * value.value:,.0f}" for value in (load.escalated_least, load.escalated_most)]
    point, limit = _false_per_million(blocks, load.prevalence)
    ppv, least = (_percent(blocks.ppv(load.prevalence, worst=worst)) for worst in (False, True))
    return [
        f"generated images that pass before stage 3: {found.released(synthetic=True)}",
        f"reviews per million media: {' to '.join(reviews)}",
        f"false blocks per million media: {point:,.0f}, at most {limit:,.0f} (95 %)",
        f"PPV of a block: {ppv}, at least {least}",
    ]


def _false_per_million(blocks: Blocks, prevalence: float) -> tuple[float, float]:
    """As counted, and with 95 % confidence."""
    real = MILLION * (1.0 - prevalence)
    return real * blocks.false.share, real * blocks.false.upper_limit


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _range(interval: Interval | None, form: str) -> str:
    return "-" if interval is None else f"{interval.low:{form}} to {interval.high:{form}}"
