"""Has the traffic of a source changed? Population stability index and Kolmogorov-Smirnov between two windows.

The size of a change and the certainty of it are two things: the index grows with the change alone where there is much
traffic, and by chance where there is little. A change is flagged when it is both large and no chance.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
from scipy.stats import chi2_contingency, ks_2samp

from pipeline.detection.calibration import Floats
from pipeline.detection.spectral.strata import codec_bucket, size_bucket
from pipeline.evaluation.monitoring.corrections import holm
from pipeline.evaluation.tables import Figure
from schemas.decision import Decision
from schemas.types import StageName

BINS = 10
LARGE_PSI = 0.25
"""By convention: below 0.10 stable, above 0.25 another population. On top of `Change.by_chance`."""

LEAST_EXPECTED = 5.0
"""Items that a category needs in the smaller window for chi-squared (Cochran, Biometrics 10, 1954); rarer ones are
tested together."""

LARGE_KS = 0.15
SIGNIFICANCE = 0.01
"""After Holm's correction over all tests of a report."""

LEAST_ITEMS = 100
"""In each window; below it a source is counted and not tested."""

NO_SOURCE = "(none)"


class What(StrEnum):
    """What is compared."""

    CLASSIFIER = "classifier score"
    SPECTRAL = "spectral score"
    CODEC = "codec mix"
    STRATA = "strata mix"


class Change(Figure):
    """One quantity of one source. `p_value` is corrected; `moved`: the category that changed most, before and after.

    `by_chance`: the index that two samples of these sizes from one population have on average.
    """

    source: str
    what: What
    before: int
    after: int
    psi: float
    by_chance: float
    ks: float | None
    p_value: float
    flagged: bool
    moved: str = ""
    moved_before: float | None = None
    moved_after: float | None = None


class DriftReport(Figure):
    """Changes, the flagged first. `untested`: source -> items before and after, where there are too few."""

    reference_since: datetime
    since: datetime
    until: datetime
    changes: tuple[Change, ...]
    untested: dict[str, tuple[int, int]]

    @property
    def flagged(self) -> tuple[Change, ...]:
        """What a person should look at."""
        return tuple(change for change in self.changes if change.flagged)


@dataclass(slots=True)
class Traffic:
    """One window of one source: 16 bytes for each decision, for its two scores."""

    items: int = 0
    scores: dict[What, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    mixes: dict[What, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, decision: Decision) -> None:
        """Count one decision; media that could not be decoded has no mix and no score."""
        self.items += 1
        for score in decision.scores:
            if score.score is not None and score.stage is not StageName.MLLM:
                what = What.CLASSIFIER if score.stage is StageName.CLASSIFIER else What.SPECTRAL
                self.scores[what].append(score.score)
        if decision.facts is not None:
            codec = codec_bucket(decision.facts)
            shorter = min(decision.facts.width, decision.facts.height)
            self.mixes[What.CODEC][codec] += 1
            self.mixes[What.STRATA][f"{codec}/{size_bucket(shorter)}"] += 1


def by_source(decisions: Iterable[Decision]) -> dict[str, Traffic]:
    """Traffic of each source, as producers name themselves."""
    return by_source_and_time(decisions, datetime.max.replace(tzinfo=UTC))[0]


def by_source_and_time(decisions: Iterable[Decision], since: datetime) -> tuple[dict[str, Traffic], dict[str, Traffic]]:
    """The same of what was admitted before that time, and of the rest, in one pass."""
    before: dict[str, Traffic] = defaultdict(Traffic)
    after: dict[str, Traffic] = defaultdict(Traffic)
    for decision in decisions:
        window = before if decision.admission.admitted_at < since else after
        window[decision.admission.source or NO_SOURCE].add(decision)
    return dict(before), dict(after)


def drift_report(
    before: Mapping[str, Traffic],
    after: Mapping[str, Traffic],
    times: tuple[datetime, datetime, datetime],
    least: int = LEAST_ITEMS,
) -> DriftReport:
    """Compare two windows, source by source.

    Args:
        before: of the reference window.
        after: of the current window.
        times: begin of the reference, its end and the begin of the current window, and the end of that.
        least: items of a quantity in each window that a test needs.
    """
    found: list[Change] = []
    untested: dict[str, tuple[int, int]] = {}
    for source in sorted(before.keys() | after.keys()):
        old, new = before.get(source, Traffic()), after.get(source, Traffic())
        changes = [c for what in What if (c := _compare(source, what, old, new, least)) is not None]
        found += changes
        if not changes:
            untested[source] = (old.items, new.items)
    corrected = holm([change.p_value for change in found])
    tested = [_judged(change, p) for change, p in zip(found, corrected, strict=True)]
    return DriftReport(
        reference_since=times[0],
        since=times[1],
        until=times[2],
        changes=tuple(sorted(tested, key=lambda c: (not c.flagged, -c.psi, c.source, c.what))),
        untested=untested,
    )


def psi_of_scores(before: Floats, after: Floats) -> float:
    """Over the deciles of the reference."""
    return _psi(*_binned(before, after))


def _binned(before: Floats, after: Floats) -> tuple[list[int], list[int]]:
    cuts = np.unique(np.quantile(before, np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
    bins = [np.bincount(np.searchsorted(cuts, x, side="right"), minlength=cuts.size + 1) for x in (before, after)]
    return bins[0].tolist(), bins[1].tolist()


def psi_of_mix(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Over the categories of either."""
    names = sorted(before.keys() | after.keys())
    return _psi([before.get(n, 0) for n in names], [after.get(n, 0) for n in names])


def psi_by_chance(bins: int, before: int, after: int) -> float:
    """Mean index of two samples from one population: (B - 1)(1/n + 1/m), after Yurdakul (thesis, W. Michigan, 2018)."""
    return (bins - 1) * (1.0 / before + 1.0 / after)


def chi_squared(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """p-value of one mix against another; categories too rare for the test count as one. 1 where none is left.

    Args:
        before: items of each category, at least one in all.
        after: likewise.
    """
    sizes = sum(before.values()), sum(after.values())
    smaller = min(sizes) / sum(sizes)
    names = sorted(before.keys() | after.keys(), key=lambda n: before.get(n, 0) + after.get(n, 0))
    columns: list[tuple[int, int]] = []
    rare = (0, 0)
    for name in names:  # the rarest first
        rare = (rare[0] + before.get(name, 0), rare[1] + after.get(name, 0))
        if sum(rare) * smaller >= LEAST_EXPECTED:
            columns.append(rare)
            rare = (0, 0)
    if len(columns) < 2:
        return 1.0
    last = columns.pop()  # what is still too few goes to the most frequent
    columns.append((last[0] + rare[0], last[1] + rare[1]))
    return float(chi2_contingency(list(zip(*columns, strict=True))).pvalue)


def _psi(before: Sequence[int], after: Sequence[int]) -> float:
    """Sum of (q - p) ln(q / p); half an item is added to each bin, so that an empty one is not infinite."""
    p, q = (np.asarray(counts, np.float64) + 0.5 for counts in (before, after))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def _compare(source: str, what: What, old: Traffic, new: Traffic, least: int) -> Change | None:
    if what in (What.CLASSIFIER, What.SPECTRAL):
        scores = np.array(old.scores.get(what, ())), np.array(new.scores.get(what, ()))
        return _scores(source, what, *scores) if min(x.size for x in scores) >= least else None
    mixes = old.mixes.get(what, Counter()), new.mixes.get(what, Counter())
    return _mix(source, what, *mixes) if min(x.total() for x in mixes) >= least else None


def _scores(source: str, what: What, before: Floats, after: Floats) -> Change:
    test = ks_2samp(before, after, method="asymp")
    bins = _binned(before, after)
    return Change(
        source=source,
        what=what,
        before=before.size,
        after=after.size,
        psi=_psi(*bins),
        by_chance=psi_by_chance(len(bins[0]), before.size, after.size),
        ks=float(test.statistic),
        p_value=float(test.pvalue),
        flagged=False,
    )


def _mix(source: str, what: What, before: Counter[str], after: Counter[str]) -> Change:
    names = sorted(before.keys() | after.keys())
    shares = {n: (before[n] / before.total(), after[n] / after.total()) for n in names}
    moved = max(names, key=lambda n: abs(shares[n][1] - shares[n][0]))
    return Change(
        source=source,
        what=what,
        before=before.total(),
        after=after.total(),
        psi=psi_of_mix(before, after),
        by_chance=psi_by_chance(len(names), before.total(), after.total()),
        ks=None,
        p_value=chi_squared(before, after),
        flagged=False,
        moved=moved,
        moved_before=shares[moved][0],
        moved_after=shares[moved][1],
    )


def _judged(change: Change, p_value: float) -> Change:
    large = change.psi - change.by_chance >= LARGE_PSI or (change.ks is not None and change.ks >= LARGE_KS)
    return change.model_copy(update={"p_value": p_value, "flagged": large and p_value < SIGNIFICANCE})
