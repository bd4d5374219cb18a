"""`mediasieve evaluate --suite weekly`: the frozen sets, last week's confirmed cases, the registered adapter sets."""

from __future__ import annotations

import json as json_text
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import typer
from rich.console import Console
from rich.table import Table

from pipeline.detection.bundle import Bundle
from pipeline.evaluation.layouts import Dataset, open_dataset
from pipeline.evaluation.monitoring.announce import announce, quality_event
from pipeline.evaluation.monitoring.confirmed import export_confirmed, write_scores_then
from pipeline.evaluation.monitoring.recorded import Recorded, Window
from pipeline.evaluation.monitoring.weekly import (
    REPORT_FILE,
    Measured,
    Scores,
    WeeklyReport,
    against,
    compare_sets,
    figures_of,
    judged,
    last_run,
)
from pipeline.evaluation.monitoring.weekly_sets import CONFIRMED, WeeklySets
from pipeline.evaluation.scoring import ScoringJob, score_dataset
from pipeline.media.content_store import open_store
from schemas.quality import Finding, QualitySource
from schemas.review import Label
from workers.cli.common import print_json
from workers.cli.findings import EXIT_FOUND
from workers.settings import Settings

_THEN_FILE = "then.jsonl"


@dataclass(frozen=True, slots=True)
class WeeklyRun:
    """One run in a folder of its day below `home`; run again on the same day, it goes on where it stopped."""

    sets: WeeklySets
    home: Path
    settings: Settings
    bundle_path: Path | None
    processes: int
    now: datetime

    @property
    def directory(self) -> Path:
        """Of this run."""
        return self.home / f"{self.now:%Y-%m-%d}"

    def report(self) -> WeeklyReport:
        """Score what is not scored yet, compare, write the report.

        Raises:
            WeeklyInvalid, DatasetError, ScoresError, BundleError: a set, a former run or the bundle.
            KafkaUnavailable, RecordUnreadable, StoreUnavailable: for the confirmed cases.
        """
        bundle = Bundle.load(self.bundle_path)
        threshold = bundle.policy.thresholds.t2
        former = last_run(self.home, self.directory.name)
        scored = {each.name: self._scored(each.name, each.open(), threshold) for each in self.sets.sets}
        measured, new = against(former, scored)
        notes: tuple[str, ...] = ()
        if self.sets.confirmed_days:
            confirmed, then, notes = self._confirmed(bundle, threshold)
            measured += then
            scored |= confirmed
        found = WeeklyReport(
            made_at=self.now,
            bundle=bundle.version,
            policy=bundle.policy.version,
            threshold=threshold,
            sets=tuple(figures_of(name, scores) for name, scores in scored.items()),
            compared_with=former[0].name if former else None,
            compared_bundle=former[1].bundle if former else None,
            comparisons=judged(measured, self.sets.least_drop),
            new_sets=tuple(new),
            notes=notes,
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        text = json_text.dumps(json_text.loads(found.model_dump_json()), indent=1)
        (self.directory / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        return found

    def _scored(self, name: str, dataset: Dataset, threshold: float) -> Scores:
        job = ScoringJob(bundle_path=self.bundle_path)
        with Console(stderr=True).status(f"scoring {name}"):
            path = score_dataset(job, dataset, self.directory / name, processes=self.processes)
        return Scores.read(path, threshold)

    def _confirmed(self, bundle: Bundle, threshold: float) -> tuple[dict[str, Scores], list[Measured], tuple[str, ...]]:
        """Compared with the scores that the fleet decided on, for each week has other cases."""
        recorded = Recorded(self.settings.kafka)
        since = self.now - timedelta(days=self.sets.confirmed_days)
        # A case may have waited for its review, so its decision is older.
        window = Window(since - timedelta(days=30 - self.sets.confirmed_days), self.now)
        reviews = {uid: r for uid, r in recorded.reviews(since).items() if r.reviewed_at >= since}
        known = {update.content_sha256 for update in recorded.references(window.since)}
        with TemporaryDirectory(prefix="mediasieve-confirmed-") as folder:
            store = open_store(self.settings.store)
            exported, decisions = export_confirmed(recorded.decisions(window), reviews, known, store, Path(folder))
            if not exported.cases:
                return {}, [], exported.notes
            shutil.rmtree(self.directory / CONFIRMED, ignore_errors=True)  # of an earlier try, with other cases
            now = self._scored(CONFIRMED, open_dataset(Path(folder)), threshold)
        labels = {key: reviews[d.decision_uid].label is Label.GENERATED for key, d in decisions.items()}
        path = self.directory / CONFIRMED / _THEN_FILE
        written, of_others = write_scores_then(path, decisions, labels, bundle)
        notes = exported.notes
        if of_others:
            notes += (f"confirmed: {of_others} cases were chosen by other models, so nothing is compared on them",)
        compared = compare_sets(CONFIRMED, Scores.read(path, threshold), now) if written else ()
        return {CONFIRMED: now}, list(compared), notes


def run_weekly(run: WeeklyRun, *, announce_it: bool, json: bool) -> None:
    """Print the report; exit 3 on a regression, which is announced on `quality.events` unless told otherwise."""
    found = run.report()
    if found.regressions and announce_it:
        findings = map(finding, found.regressions)
        bundle = Bundle.load(run.bundle_path)
        announce(run.settings.kafka, quality_event(QualitySource.WEEKLY, bundle, findings, found.made_at))
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found, run.directory)
    raise typer.Exit(EXIT_FOUND if found.regressions else 0)


def finding(each: Measured) -> Finding:
    """As an event says it."""
    detail = f"{each.images} images in both runs, p {each.p_value:.2g}"
    return Finding(subject=each.name, measure=each.measure, before=each.before, after=each.after, detail=detail)


def now_utc() -> datetime:
    """To the second, as reports say it."""
    return datetime.now(UTC).replace(microsecond=0)


def _print(found: WeeklyReport, directory: Path) -> None:
    console = Console(highlight=False)
    console.print(f"bundle {found.bundle}, policy {found.policy}, cut {found.threshold}", markup=False)
    table = Table("set", "AUC", "FNR", "FPR", "failed")
    for each in found.sets:
        auc = "-" if each.auc is None else f"{each.auc:.3f}"
        rates = (f"{x.share:.1%} ({x.low:.1%}-{x.high:.1%})" if x.total else "-" for x in (each.fnr, each.fpr))
        table.add_row(each.name, auc, *rates, str(each.failed))
    console.print(table)
    if found.compared_with:
        console.print(f"compared with {found.compared_with}, bundle {found.compared_bundle}", markup=False)
    changes = Table("set", "measure", "images", "before", "after", "p", "regressed")
    for change in found.comparisons:
        values = (f"{change.before:.4f}", f"{change.after:.4f}", f"{change.p_value:.2g}")
        changes.add_row(change.name, change.measure, str(change.images), *values, "yes" if change.regressed else "")
    console.print(changes)
    for note in (*(f"{name}: nothing to compare with yet" for name in found.new_sets), *found.notes):
        console.print(f"- {note}", markup=False)
    console.print(str(directory / REPORT_FILE), markup=False, soft_wrap=True)
