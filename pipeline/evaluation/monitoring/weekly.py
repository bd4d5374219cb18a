"""One run of the weekly evaluation: figures of each set, compared with the last run image by image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.columns import Columns, read_columns
from pipeline.evaluation.comparison import delong, mcnemar
from pipeline.evaluation.intervals import Rate
from pipeline.evaluation.metrics import roc_auc
from pipeline.evaluation.monitoring.corrections import holm
from pipeline.evaluation.monitoring.weekly_sets import WeeklyInvalid
from pipeline.evaluation.scoring import AS_DELIVERED
from pipeline.evaluation.scoring_files import SCORES_FILE
from pipeline.evaluation.tables import Figure, Share
from schemas.wire import describe

REPORT_FILE = "weekly.json"
SIGNIFICANCE = 0.01
"""After Holm's correction over all comparisons of a run."""

LEAST_OF_A_CLASS = 10
"""Images of each class below which an AUC is reported and not tested: DeLong's variance is an estimate over images, and
of two that are ranked alike it is 0, which would make chance certain."""

_DATED = re.compile(r"\d{4}-\d{2}-\d{2}")


class SetFigures(Figure):
    """One set at the run's threshold, fused score. Images without a score count as not flagged."""

    name: str
    failed: int
    auc: float | None
    fnr: Share
    fpr: Share


class Measured(Figure):
    """One number before and after, on the images that both runs scored. `p_value` is corrected; 1: not tested."""

    name: str
    measure: str
    images: int
    before: float
    after: float
    p_value: float
    regressed: bool = False


class WeeklyReport(Figure):
    """`compared_with`: the last run; `new_sets` have nothing to be compared with yet."""

    made_at: datetime
    bundle: str
    policy: str
    threshold: float
    sets: tuple[SetFigures, ...]
    compared_with: str | None
    compared_bundle: str | None
    comparisons: tuple[Measured, ...]
    new_sets: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[Measured, ...]:
        """What got worse, by more than the least drop and by no chance."""
        return tuple(each for each in self.comparisons if each.regressed)


class FormerRun(BaseModel):
    """What a later run needs of a report; the rest may have grown since."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bundle: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Fused scores of one set: keys, labels and scores of the same images, and the cut that counts for them."""

    columns: Columns
    threshold: float

    @classmethod
    def read(cls, path: Path, threshold: float) -> Scores:
        """Raises ScoresError: no scores file."""
        return cls(read_columns(path)[AS_DELIVERED], threshold)

    @property
    def fused(self) -> Floats:
        """P(synthetic), (N,)."""
        return self.columns.scores["fused"]

    @property
    def flagged(self) -> Bools:
        """At or above the cut."""
        found: Bools = self.fused >= self.threshold
        return found


def figures_of(name: str, scores: Scores) -> SetFigures:
    """Of one set; a set of one class has no AUC."""
    made, flagged = scores.columns.synthetic, scores.flagged
    auc = roc_auc(scores.fused[~made], scores.fused[made])
    return SetFigures(
        name=name,
        failed=int(scores.columns.failed().sum()),
        auc=None if np.isnan(auc) else auc,
        fnr=Share.of(Rate(int((made & ~flagged).sum()), int(made.sum()))),
        fpr=Share.of(Rate(int((~made & flagged).sum()), int((~made).sum()))),
    )


def compare_sets(name: str, before: Scores, after: Scores) -> Iterator[Measured]:
    """AUC by paired DeLong, error rates by McNemar, on the images that are in both under one label."""
    _, a, b = np.intersect1d(before.columns.key, after.columns.key, return_indices=True)
    same = before.columns.synthetic[a] == after.columns.synthetic[b]
    a, b = a[same], b[same]
    made = after.columns.synthetic[b]
    fewest = min(made.sum(), (~made).sum())
    if fewest >= 2:
        old, new = before.fused[a], after.fused[b]
        paired = delong(old[~made], old[made], new[~made], new[made])
        yield Measured(
            name=name,
            measure="auc",
            images=made.size,
            before=paired.auc_a,
            after=paired.auc_b,
            p_value=paired.p_value if fewest >= LEAST_OF_A_CLASS else 1.0,
        )
    wrong_a, wrong_b = before.flagged[a] != made, after.flagged[b] != made
    for measure, chosen in (("fnr", made), ("fpr", ~made)):
        if chosen.any():
            found = mcnemar(wrong_a[chosen], wrong_b[chosen])
            yield Measured(
                name=name,
                measure=measure,
                images=found.total,
                before=float(wrong_a[chosen].mean()),
                after=float(wrong_b[chosen].mean()),
                p_value=found.p_value,
            )


def judged(comparisons: Sequence[Measured], least_drop: float) -> tuple[Measured, ...]:
    """With corrected p-values, and what got worse marked."""
    corrected = holm([each.p_value for each in comparisons])
    return tuple(
        each.model_copy(update={"p_value": p, "regressed": _loss(each) >= max(least_drop, 1e-12) and p < SIGNIFICANCE})
        for each, p in zip(comparisons, corrected, strict=True)
    )


def _loss(each: Measured) -> float:
    """How much worse; an AUC falls, an error rate rises."""
    return each.before - each.after if each.measure == "auc" else each.after - each.before


def last_run(home: Path, today: str) -> tuple[Path, FormerRun] | None:
    """The latest finished run before `today`, by the name of its folder; None for the first one.

    Raises:
        WeeklyInvalid: its report cannot be read.
    """
    found = sorted(
        path
        for path in home.glob("*")
        if _DATED.fullmatch(path.name) and path.name < today and (path / REPORT_FILE).is_file()
    )
    if not found:
        return None
    path = found[-1] / REPORT_FILE
    try:
        return found[-1], FormerRun.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise WeeklyInvalid(f"{path}: {describe(error)}; move the folder away to begin anew") from error


def against(former: tuple[Path, FormerRun] | None, current: dict[str, Scores]) -> tuple[list[Measured], list[str]]:
    """All comparisons with the former run, and the sets that it did not have.

    Raises:
        ScoresError: a scores file of the former run.
    """
    measured: list[Measured] = []
    new: list[str] = []
    for name, scores in current.items():
        path = former[0] / name / SCORES_FILE if former else None
        if former is None or path is None or not path.is_file():
            new.append(name)
        else:
            measured += compare_sets(name, Scores.read(path, former[1].threshold), scores)
    return measured, new
