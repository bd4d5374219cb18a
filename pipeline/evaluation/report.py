"""The report: one tree of figures, as JSON for machines and as one HTML file for people.

`Report` is the documented form: every field's meaning is in its class. The HTML needs nothing but itself; its text
is escaped, because names of generators, sources and files come from whoever made the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field

from pipeline.detection.bundle import Bundle
from pipeline.detection.calibration import Floats
from pipeline.detection.policy import Policy
from pipeline.evaluation.bias import BiasReport, metadata_bias
from pipeline.evaluation.cascade import AblationRow, CascadeFigures, ShiftRow, ablation, cascade, shifts
from pipeline.evaluation.columns import Columns, read_columns
from pipeline.evaluation.comparison import auc_difference, delong, mcnemar
from pipeline.evaluation.intervals import BOOTSTRAP_ROUNDS, Interval
from pipeline.evaluation.score_row import ScoresError, read_rows
from pipeline.evaluation.scoring import AS_DELIVERED
from pipeline.evaluation.suite_tables import SUITE_OF, FlipFigures, SuiteRow, delivery_flips, suite_rows
from pipeline.evaluation.tables import (
    ROW_ROUNDS,
    Figure,
    Figures,
    Judged,
    SourceRow,
    Table,
    figures,
    grouped_tables,
    judge,
    real_sources,
)
from schemas.decision import Mode

DETECTORS = ("classifier", "spectral", "fused")
CONTROL_PREFIX = "trace-free"
"""Variants so named hold the copies without traces."""

TOY_LAYOUT = "adapter_bench"
TOY_NOTE = (
    "The images come from a small model that shows that the code works, not that a hypothesis holds: this sweep is"
    " never to be pooled with, or set beside, figures of other models. No trend is a valid result."
)
REPORT_VERSION = "1.0"


class Comparison(Figure):
    """Two detectors on the same images; differences are b - a. McNemar counts errors at the threshold."""

    a: str
    b: str
    auc_a: float
    auc_b: float
    difference: float
    interval: Annotated[Interval, Field(description="DeLong, paired, images independent")]
    p_value: float
    clustered: Annotated[Interval | None, Field(description="bootstrap over whole clusters")]
    fnr_difference: float
    fnr_p_value: Annotated[float, Field(description="exact McNemar on generated images")]
    fpr_difference: float
    fpr_p_value: Annotated[float, Field(description="exact McNemar on real images")]


class Counts(Figure):
    """What the variant holds. None of these leaves a denominator."""

    real: int
    synthetic: int
    failed_real: int
    failed_synthetic: int
    not_applicable_real: Annotated[int, Field(description="decoded, but the spectrum says nothing")]
    not_applicable_synthetic: int
    delivery_sensitive: int
    sources_real: int
    sources_synthetic: int
    clusters: int


class VariantReport(Figure):
    """Everything about one treatment of the images."""

    name: str
    counts: Counts
    pooled: Annotated[tuple[Figures, ...], Field(description="each detector on all images")]
    comparisons: tuple[Comparison, ...]
    tables: tuple[Table, ...]
    real_sources: tuple[SourceRow, ...]
    cascades: tuple[CascadeFigures, ...]
    ablation: tuple[AblationRow, ...]
    shifts: tuple[ShiftRow, ...]


class Report(Figure):
    """An evaluation of one bundle on one dataset. `threshold` is the one cut of all tables, on P(synthetic)."""

    report_version: str = REPORT_VERSION
    made_at: AwareDatetime
    title_note: str
    dataset: str
    layout: str
    scored_by: Annotated[str, Field(description="processes of this machine, or the fleet")]
    bundle: str
    policy: str
    mode: Mode
    threshold: float
    prior: float
    refused: Annotated[int, Field(description="images left out because the bundle was trained on them")]
    training_images: Annotated[int, Field(description="images scored although the bundle was trained on them")]
    mean_ms: Annotated[dict[str, float], Field(description="measured milliseconds of one image by stage")]
    bias: BiasReport
    variants: tuple[VariantReport, ...]
    suites: Annotated[tuple[SuiteRow, ...], Field(description="robustness suites, fused score at the threshold")]
    flips: Annotated[tuple[FlipFigures, ...], Field(description="delivery stability; empty when not run")]
    bundle_comparison: tuple[Comparison, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """What the scores file does not say."""

    dataset: str
    layout: str
    bundle: Bundle
    scored_by: str = "processes of this machine"
    refused: int = 0
    training_images: int = 0
    mean_ms: Mapping[str, float] | None = None
    threshold: float | None = None
    prevalence: float = 0.1
    compare: Path | None = None
    rounds: int = BOOTSTRAP_ROUNDS


def build_report(scores: Path, about: About) -> tuple[Report, dict[str, Columns]]:
    """All figures of a scores file, and its columns for the charts.

    Raises:
        ScoresError: unreadable, or images of one class only.
    """
    variants = read_columns(scores)
    policy = about.bundle.policy
    threshold = policy.thresholds.t2 if about.threshold is None else about.threshold
    first = variants.get(AS_DELIVERED) or next(iter(variants.values()))
    if first.synthetic.all() or not first.synthetic.any():
        held = "generated" if first.synthetic.all() else "real"
        raise ScoresError(f"{scores}: holds {held} images only; error rates need both classes, add the other one")
    control = next((c for name, c in variants.items() if name.startswith(CONTROL_PREFIX)), None)
    toy = about.layout == TOY_LAYOUT
    reports = tuple(
        _variant(name, columns, None if name.startswith(CONTROL_PREFIX) else control, policy, threshold, about)
        for name, columns in variants.items()
        if name not in SUITE_OF
    )
    report = Report(
        made_at=datetime.now(UTC).replace(microsecond=0),
        title_note=TOY_NOTE if toy else "",
        dataset=about.dataset,
        layout=about.layout,
        scored_by=about.scored_by,
        bundle=about.bundle.version,
        policy=policy.version,
        mode=policy.mode,
        threshold=threshold,
        prior=policy.fusion.prior,
        refused=about.refused,
        training_images=about.training_images,
        mean_ms=dict(about.mean_ms or {}),
        bias=metadata_bias(row for row in read_rows(scores) if row.variant == AS_DELIVERED),
        variants=reports,
        suites=suite_rows(variants, first, threshold),
        flips=delivery_flips(scores, AS_DELIVERED, threshold),
        bundle_comparison=_against(about.compare, variants, threshold, about.rounds) if about.compare else (),
    )
    return report, variants


def write_json(report: Report, path: Path) -> None:
    """The machine-readable report; NaN is null."""
    content = json.loads(report.model_dump_json())
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _variant(  # noqa: PLR0917 - one variant's parts
    name: str, columns: Columns, control: Columns | None, policy: Policy, threshold: float, about: About
) -> VariantReport:
    detectors = {d: judge(columns, control, d, threshold) for d in DETECTORS}
    everything = columns.synthetic | ~columns.synthetic
    pairs = (("classifier", "fused"), ("spectral", "fused"), ("classifier", "spectral"))
    return VariantReport(
        name=name,
        counts=_counts(columns),
        pooled=tuple(figures(columns, judged, everything, about.rounds) for judged in detectors.values()),
        comparisons=tuple(
            compare(columns, (a, detectors[a].scores), (b, detectors[b].scores), threshold, about.rounds)
            for a, b in pairs
        ),
        tables=grouped_tables(columns, detectors, min(ROW_ROUNDS, about.rounds)),
        real_sources=real_sources(columns, detectors["fused"]),
        cascades=tuple(
            cascade(columns, policy, mode, about.prevalence, about.mean_ms or {})
            for mode in (policy.mode, Mode.FUSED if policy.mode is Mode.STRICT else Mode.STRICT)
        ),
        ablation=ablation(columns, detectors, with_hypotheses=about.layout != TOY_LAYOUT),
        shifts=_shifts(columns, detectors["fused"]),
    )


def compare(
    columns: Columns, a: tuple[str, Floats], b: tuple[str, Floats], threshold: float, rounds: int
) -> Comparison:
    """Two detectors, given as (name, scores (N,)), on all images of a variant."""
    made, real = columns.synthetic, ~columns.synthetic
    (name_a, of_a), (name_b, of_b) = a, b
    paired = delong(of_a[real], of_a[made], of_b[real], of_b[made])
    missed = mcnemar(of_a[made] < threshold, of_b[made] < threshold)
    flagged = mcnemar(of_a[real] >= threshold, of_b[real] >= threshold)
    clustered = auc_difference(
        (of_a[real], of_a[made]),
        (of_b[real], of_b[made]),
        columns.group.codes[real],
        columns.group.codes[made],
        rounds=rounds,
    )
    return Comparison(
        a=name_a,
        b=name_b,
        auc_a=paired.auc_a,
        auc_b=paired.auc_b,
        difference=paired.difference,
        interval=paired.interval,
        p_value=paired.p_value,
        clustered=clustered,
        fnr_difference=missed.difference,
        fnr_p_value=missed.p_value,
        fpr_difference=flagged.difference,
        fpr_p_value=flagged.p_value,
    )


def _against(other: Path, variants: Mapping[str, Columns], threshold: float, rounds: int) -> tuple[Comparison, ...]:
    """Another bundle's scores of the same images (a) against these (b), by variant and detector."""
    theirs = read_columns(other)
    found = []
    for name, columns in variants.items():
        if name not in theirs or name in SUITE_OF:
            continue
        if not (theirs[name].key.shape == columns.key.shape and (theirs[name].key == columns.key).all()):
            raise ScoresError(f"{other}: variant {name!r} has other images; score the same dataset with both bundles")
        found += [
            compare(
                columns,
                (f"{name}: {d}, other bundle", theirs[name].scores[d]),
                (f"{name}: {d}, this bundle", columns.scores[d]),
                threshold,
                rounds,
            )
            for d in DETECTORS
        ]
    return tuple(found)


def _counts(columns: Columns) -> Counts:
    failed, silent = columns.failed(), columns.status.where("not_applicable")
    made = columns.synthetic
    return Counts(
        real=int((~made).sum()),
        synthetic=int(made.sum()),
        failed_real=int((failed & ~made).sum()),
        failed_synthetic=int((failed & made).sum()),
        not_applicable_real=int((silent & ~made).sum()),
        not_applicable_synthetic=int((silent & made).sum()),
        delivery_sensitive=int(columns.delivery_sensitive.sum()),
        sources_real=len(columns.source.present(~made)),
        sources_synthetic=len(columns.source.present(made)),
        clusters=len(columns.group.names),
    )


def _shifts(columns: Columns, judged: Judged) -> Sequence[ShiftRow]:
    ranked = (columns.rank >= 0).any()
    return shifts(columns, judged) if ranked else ()
