"""The report's main tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.table import Table as RichTable
from rich.text import Text

from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.report import Report, VariantReport
from pipeline.evaluation.tables import Figures, Share, Table

_HEADLINE_FPRS = (0.01, 0.10)
_MOST_ROWS = 60


def tables(report: Report) -> Iterator[RichTable | Text]:
    """Warnings, then the tables of every variant."""
    yield from _warnings(report)
    for variant in report.variants:
        yield Text(f"\n{variant.name}: {_counts(variant)}", style="bold")
        yield _pooled(variant, report.threshold)
        yield _comparisons(variant)
        yield _cascade(variant)
        yield _ablation(variant)
        if variant.shifts:
            yield _shifts(variant)
        for table in variant.tables:
            yield _groups(table)


def _warnings(report: Report) -> Iterator[Text]:
    if report.title_note:
        yield Text(report.title_note, style="yellow")
    if report.refused:
        yield Text(
            f"{report.refused} images left out: the bundle was trained on them or on near copies", style="yellow"
        )
    if report.training_images:
        yield Text(f"{report.training_images} scored images are in the bundle's training list: too good", style="red")
    bias = report.bias
    if bias.flagged:
        what = f"AUC {bias.auc:.3f} from format, quality and size alone" if bias.auc is not None else bias.detail
        yield Text(f"metadata bias: {what}; read the equal-codec figures, not those as delivered", style="yellow")


def _counts(variant: VariantReport) -> str:
    c = variant.counts
    return (
        f"{c.real} real of {c.sources_real} sources, {c.synthetic} generated of {c.sources_synthetic};"
        f" not decoded {c.failed_real} + {c.failed_synthetic},"
        f" spectrum not applicable {c.not_applicable_real} + {c.not_applicable_synthetic}"
    )


def _pooled(variant: VariantReport, threshold: float) -> RichTable:
    table = RichTable(f"threshold {threshold:.4g}", *(found.detector for found in variant.pooled))
    for name, cell in _MEASURES.items():
        table.add_row(name, *(cell(found) for found in variant.pooled))
    for fpr in _HEADLINE_FPRS:
        table.add_row(f"FNR (FPR), cut frozen for {fpr:.0%}", *(_frozen(found, fpr) for found in variant.pooled))
    return table


_MEASURES: dict[str, Callable[[Figures], str]] = {
    "AUC (DeLong)": lambda f: f"{f.auc:.3f} {interval(f.auc_interval)}",
    "AUC, clustered": lambda f: interval(f.auc_clustered),
    "AUC of the trace-free control": lambda f: "-" if f.control_auc is None else f"{f.control_auc:.3f}",
    "average precision": lambda f: f"{f.average_precision:.3f}",
    "FNR": lambda f: short(f.at_threshold.fnr),
    "FPR": lambda f: short(f.at_threshold.fpr),
    "R.Acc / F.Acc": lambda f: f"{f.confusion.real_accuracy.share:.1%} / {f.confusion.synthetic_accuracy.share:.1%}",
    "ECE / Brier / NLL": lambda f: f"{f.calibration.ece:.3f} / {f.calibration.brier:.3f} / {f.calibration.nll:.3f}",
    "without score": lambda f: str(f.without_score),
}


def _comparisons(variant: VariantReport) -> RichTable:
    table = RichTable("a -> b", "AUC difference (DeLong)", "FNR, McNemar", "FPR, McNemar")
    for c in variant.comparisons:
        table.add_row(
            f"{c.a} -> {c.b}",
            f"{c.difference:+.3f} {signed(c.interval)}, p {c.p_value:.2g}",
            f"{c.fnr_difference:+.1%}, p {c.fnr_p_value:.2g}",
            f"{c.fpr_difference:+.1%}, p {c.fpr_p_value:.2g}",
        )
    return table


def _cascade(variant: VariantReport) -> RichTable:
    table = RichTable("cascade", *(f"{c.mode}{'' if c.is_policy else ' (not the policy)'}" for c in variant.cascades))
    for number, name in enumerate(("1", "2|1")):
        table.add_row(f"FNR {name}", *(short(c.stages[number].fnr) for c in variant.cascades))
        table.add_row(f"FPR {name}", *(short(c.stages[number].fpr) for c in variant.cascades))
    table.add_row("FNR 1+2", *(short(c.fnr) for c in variant.cascades))
    table.add_row("FPR 1+2", *(short(c.fpr) for c in variant.cascades))
    table.add_row("blocked real at worst", *(short(c.block_fpr_most) for c in variant.cascades))
    for c in variant.cascades[:1]:
        table.caption = f"shares of the traffic below: at prevalence {c.prevalence:.0%}"
    table.add_row("reach stage 2", *(f"{c.reach_stage2.share:.1%}" for c in variant.cascades))
    table.add_row("reach the MLLM", *(f"{c.reach_mllm.share:.1%}" for c in variant.cascades))
    return table


def _ablation(variant: VariantReport) -> RichTable:
    hypotheses = any(row.hypothesis_fnr_adapter for row in variant.ablation)
    table = RichTable("alone", "AUC", "FNR base", "FNR adapter", "AUC adapter")
    if hypotheses:
        table.add_column("untested claim: FNR LoRA", style="dim")
        table.add_column("AUC LoRA", style="dim")
    for row in variant.ablation:
        cells = [row.detector, f"{row.auc:.3f}"]
        cells += ["-" if found is None else percent(found) for found in (row.fnr_base, row.fnr_adapter)]
        cells.append("-" if row.auc_adapter is None else f"{row.auc_adapter:.3f}")
        table.add_row(*cells, *([row.hypothesis_fnr_adapter, row.hypothesis_auc_adapter] if hypotheses else []))
    return table


def _shifts(variant: VariantReport) -> RichTable:
    table = RichTable("base", "type", "rank", "images", "FNR", "FNR base", "adapter shift", "base shift")
    for row in variant.shifts:
        table.add_row(
            Text(row.base),
            Text(row.adapter_type),
            "-" if row.rank is None else str(row.rank),
            str(row.images),
            percent(row.fnr),
            percent(row.fnr_base),
            f"{row.adapter_shift:+.3f} {signed(row.adapter_shift_interval)}",
            "-" if row.base_shift is None else f"{row.base_shift:+.3f}",
        )
    return table


def _groups(groups: Table) -> RichTable:
    table = RichTable(groups.title, "real", "gen.", "AUC", "control", "FNR", "FPR", "FNR (FPR), frozen 1%")
    for row in groups.rows[:_MOST_ROWS]:
        f = row.fused
        table.add_row(
            Text(row.name),
            str(f.real),
            str(f.synthetic),
            f"{f.auc:.3f}",
            "-" if f.control_auc is None else f"{f.control_auc:.3f}",
            percent(f.at_threshold.fnr),
            percent(f.at_threshold.fpr),
            _frozen(f, _HEADLINE_FPRS[0]),
        )
    if len(groups.rows) > _MOST_ROWS:
        table.caption = f"{len(groups.rows) - _MOST_ROWS} more rows in the report"
    return table


def _frozen(found: Figures, fpr: float) -> str:
    point = next((point for point in found.frozen if point.target_fpr == fpr), None)
    return f"{percent(point.fnr)} ({percent(point.fpr)})" if point else "-"


def percent(found: Share) -> str:
    """12.3 %, or a dash of nothing."""
    return f"{found.share:.1%}" if found.total else "-"


def short(found: Share) -> str:
    """12.3 % with its interval."""
    return f"{found.share:.1%} ({found.low:.1%}-{found.high:.1%})" if found.total else "-"


def interval(found: Interval | None) -> str:
    """Low-high."""
    return f"{found.low:.3f}-{found.high:.3f}" if found else "-"


def signed(found: Interval | None) -> str:
    """Low to high, with signs."""
    return f"{found.low:+.3f} to {found.high:+.3f}" if found else "-"
