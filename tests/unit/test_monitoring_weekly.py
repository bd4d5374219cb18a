"""The weekly evaluation: its sets, its comparison with the last run, and what it calls a regression."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import ocsf_emitter
import pytest
from ocsf_emitter import models as oracle

from pipeline.detection.bundle import Bundle
from pipeline.evaluation.layouts import open_dataset
from pipeline.evaluation.monitoring.announce import quality_event
from pipeline.evaluation.monitoring.confirmed import export_confirmed, write_scores_then
from pipeline.evaluation.monitoring.weekly import (
    LEAST_OF_A_CLASS,
    REPORT_FILE,
    FormerRun,
    Scores,
    WeeklyReport,
    against,
    compare_sets,
    figures_of,
    judged,
    last_run,
)
from pipeline.evaluation.monitoring.weekly_sets import WeeklyInvalid, WeeklySets
from pipeline.evaluation.score_row import ScoreRow, read_rows, write_rows
from pipeline.evaluation.scoring_files import SCORES_FILE
from pipeline.media.content_store import ContentStore
from schemas.decision import Outcome, Risk
from schemas.quality import Finding, QualitySource
from schemas.review import Label
from schemas.wire import decode, encode
from tests.support.monitoring import NOW, by_uid, decided, reviewed
from tests.support.score_rows import row


def scores(path: Path, shift: float, *, made: tuple[bool, ...] = (False, True), start: int = 0) -> Scores:
    """`shift` is how far the classes lie apart; the noise of an image is the same in every file."""
    count = 300
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.15, (count + start, 2))
    rows: list[ScoreRow] = []
    for number in range(start, count + start):
        for synthetic in made:
            value = float(np.clip(0.5 + (shift if synthetic else -shift) + noise[number, int(synthetic)], 0, 1))
            key = f"{number}{synthetic}"
            rows.append(row(key, synthetic=synthetic, s1=value, s2=value).model_copy(update={"fused": value}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows)
    return Scores.read(path, 0.5)


def test_an_unchanged_detector_regresses_nowhere(tmp_path: Path) -> None:
    a, b = (scores(tmp_path / name, 0.15) for name in "ab")
    found = judged(list(compare_sets("frozen", a, b)), 0.0)
    assert [m.measure for m in found] == ["auc", "fnr", "fpr"]
    assert not any(m.regressed for m in found)
    assert {m.p_value for m in found} == {1.0}


def test_a_worse_detector_is_named_by_set_and_measure(tmp_path: Path) -> None:
    a, b = scores(tmp_path / "a", 0.15), scores(tmp_path / "b", 0.05)
    found = judged(list(compare_sets("frozen", a, b)), 0.005)
    assert {m.name for m in found} == {"frozen"}
    assert {m.measure for m in found if m.regressed} == {"auc", "fnr", "fpr"}
    better = judged(list(compare_sets("frozen", b, a)), 0.005)
    assert not any(m.regressed for m in better), "what got better is no regression"


def test_a_drop_below_the_least_one_is_none(tmp_path: Path) -> None:
    a, b = scores(tmp_path / "a", 0.15), scores(tmp_path / "b", 0.05)
    assert not any(m.regressed for m in judged(list(compare_sets("frozen", a, b)), 0.99))


def test_an_auc_of_few_images_is_told_and_not_tested(tmp_path: Path) -> None:
    def few(name: str, count: int, made: float) -> Scores:
        path = tmp_path / name
        pairs = [(n, synthetic) for n in range(count) for synthetic in (False, True)]
        write_rows(
            path,
            (
                row(f"{n}{synthetic}", synthetic=synthetic, s1=0.5, s2=0.5).model_copy(
                    update={"fused": made if synthetic else 0.4}
                )
                for n, synthetic in pairs
            ),
        )
        return Scores.read(path, 0.0)

    for count, regressed in ((LEAST_OF_A_CLASS - 1, False), (LEAST_OF_A_CLASS, True)):
        before, after = few(f"a{count}", count, 0.9), few(f"b{count}", count, 0.1)
        auc = next(m for m in judged(list(compare_sets("lora", before, after)), 0.005) if m.measure == "auc")
        assert (auc.before, auc.after, auc.regressed) == (1.0, 0.0, regressed)


def test_only_images_of_both_runs_are_compared(tmp_path: Path) -> None:
    a, b = scores(tmp_path / "a", 0.15), scores(tmp_path / "b", 0.15, start=100)
    assert {m.measure: m.images for m in compare_sets("s", a, b)} == {"auc": 400, "fnr": 200, "fpr": 200}


def test_a_set_of_one_class_has_rates_and_no_auc(tmp_path: Path) -> None:
    a = scores(tmp_path / "a", 0.15, made=(True,))
    figures = figures_of("lora", a)
    assert (figures.auc, figures.fpr.total, figures.fnr.total) == (None, 0, 300)
    assert [m.measure for m in compare_sets("lora", a, a)] == ["fnr"]


def report(day: int, **changes: object) -> WeeklyReport:
    fields: dict[str, object] = {
        "made_at": NOW + timedelta(days=day),
        "bundle": "b1",
        "policy": "p1",
        "threshold": 0.5,
        "sets": (),
        "compared_with": None,
        "compared_bundle": None,
        "comparisons": (),
        "new_sets": (),
    }
    return WeeklyReport.model_validate(fields | changes)


def write(home: Path, day: str, found: WeeklyReport) -> Path:
    folder = home / day
    folder.mkdir(parents=True)
    (folder / REPORT_FILE).write_text(found.model_dump_json(), encoding="utf-8")
    return folder


def test_the_last_finished_run_before_today_counts(tmp_path: Path) -> None:
    assert last_run(tmp_path, "2026-03-15") is None
    one_class = figures_of("lora", scores(tmp_path / "lora", 0.15, made=(True,)))
    write(tmp_path, "2026-03-01", report(0))
    expected = write(tmp_path, "2026-03-08", report(7, bundle="b2", sets=(one_class,)))
    write(tmp_path, "2026-03-15", report(14))
    (tmp_path / "2026-03-14").mkdir()
    (tmp_path / "notes").mkdir()
    found = last_run(tmp_path, "2026-03-15")
    assert found is not None
    assert (found[0], found[1].bundle) == (expected, "b2")
    (expected / REPORT_FILE).write_text('{"bundle": "b2"}', encoding="utf-8")
    with pytest.raises(
        WeeklyInvalid, match=r"2026-03-08/weekly\.json: threshold: Field required; move the folder away"
    ):
        last_run(tmp_path, "2026-03-15")


def test_each_run_is_judged_at_its_own_cut_and_new_sets_are_told(tmp_path: Path) -> None:
    former = write(tmp_path, "2026-03-01", report(0, threshold=0.9))
    scores(former / "frozen" / SCORES_FILE, 0.15)
    now = {"frozen": scores(tmp_path / "now", 0.15), "lora": scores(tmp_path / "lora", 0.15)}
    measured, new = against((former, FormerRun(bundle="b1", threshold=0.9)), now)
    assert new == ["lora"]
    fnr = next(m for m in measured if m.measure == "fnr")
    assert fnr.before > 0.9
    assert fnr.after < 0.3
    assert against(None, now) == ([], ["frozen", "lora"])


# The list of sets


def listed(tmp_path: Path, text: str) -> WeeklySets:
    path = tmp_path / "weekly.toml"
    path.write_text(text, encoding="utf-8")
    return WeeklySets.load(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    found = listed(tmp_path, 'confirmed_days = 0\n[[sets]]\nname = "frozen"\npath = "data/frozen"\nreals = "/photos"\n')
    assert found.sets[0].path == tmp_path / "data/frozen"
    assert found.sets[0].reals == Path("/photos")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("confirmed_days = 0", "name at least one"),
        ('[[sets]]\nname = "a"\npath = "x"\n[[sets]]\nname = "a"\npath = "y"', "a name of its own"),
        ('[[sets]]\nname = "confirmed"\npath = "x"', "none 'confirmed'"),
        ('[[sets]]\nname = "../a"\npath = "x"', r"sets\.0\.name"),
        ("sets = 3", "sets"),
        ("[[[", "weekly.toml"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_its_field(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(WeeklyInvalid, match=fault):
        listed(tmp_path, text)


# Confirmed cases


def test_confirmed_cases_become_a_dataset_and_the_rest_is_counted(tmp_path: Path) -> None:
    store = ContentStore("memory://")
    contents = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("fake", "photo", "known", "open")}
    for name, digest in contents.items():
        store.put("acme", digest, name.encode())
    cases = {name: decided(name, Outcome.ESCALATE, 0.7, 0.8, 0.9, sha256=digest) for name, digest in contents.items()}
    gone = decided("gone", Outcome.ESCALATE, 0.7, 0.8, sha256="f" * 64)
    unseen = decided("unseen", Outcome.ESCALATE, 0.7, 0.8)
    passed = decided("passed", Outcome.PASS, 0.1, sha256=contents["photo"], risk=Risk.RELEASED)
    labels = by_uid(
        reviewed(cases["fake"], Label.GENERATED),
        reviewed(cases["photo"], Label.AI_PROCESSED),
        reviewed(cases["known"], Label.GENERATED),
        reviewed(cases["open"], Label.UNDECIDABLE),
        reviewed(gone, Label.PHOTOGRAPH),
        reviewed(passed, Label.PHOTOGRAPH),
    )
    decisions = [*cases.values(), gone, unseen, passed]
    exported, found = export_confirmed(decisions, labels, {contents["known"]}, store, tmp_path)
    assert (exported.cases, exported.undecidable, exported.in_references, exported.without_bytes) == (3, 1, 1, 1)
    assert "left out: 1 undecidable, 1 already in a reference, 1 bytes gone" in exported.notes[0]
    samples = {s.key: s for s in open_dataset(tmp_path).samples()}
    assert set(samples) == set(found)
    assert samples[str(cases["fake"].decision_uid)].synthetic
    assert not samples[str(cases["photo"].decision_uid)].synthetic
    path = tmp_path / "then.jsonl"
    truths = {key: samples[key].synthetic for key in found}
    assert write_scores_then(path, found, truths, bundle_of("b1", "m")) == (2, 0), "a pass of stage 1 is not fused"
    (fake, _) = read_rows(path)
    assert (fake.classifier, fake.spectral, fake.synthetic) == (0.7, 0.8, True)


def bundle_of(version: str, spectral: str) -> Bundle:
    """The shipped one under another name; cases of `decided` were scored by bundle b1 and reference m."""
    shipped = Bundle.load()
    assert shipped.manifest.spectral is not None
    entry = shipped.manifest.spectral.model_copy(update={"file": spectral})
    manifest = shipped.manifest.model_copy(update={"version": version, "spectral": entry})
    return replace(shipped, manifest=manifest)


@pytest.mark.parametrize(("version", "spectral"), [("b2", "m"), ("b1", "promoted")])
def test_cases_that_other_models_chose_are_not_compared(tmp_path: Path, version: str, spectral: str) -> None:
    cases = {str(n): decided(f"m{n}", Outcome.ESCALATE, 0.7, 0.8, 0.9) for n in range(3)}
    written = write_scores_then(tmp_path / "then", cases, dict.fromkeys(cases, True), bundle_of(version, spectral))
    assert written == (0, 3)


# The event


def test_a_regression_is_an_application_error_that_a_siem_validates() -> None:
    found = [Finding(subject="frozen", measure="auc", before=0.91, after=0.87, detail="p 0.0004")] * 70
    event = quality_event(QualitySource.WEEKLY, Bundle.load(), found, NOW)
    assert len(event.unmapped.findings) == 64
    assert event.message == "weekly: frozen: auc and 69 more: p 0.0004"
    assert decode(type(event), encode(event)) == event
    ours = event.model_dump(mode="json", exclude={"schema_version"})
    ocsf_emitter.validate(oracle.ApplicationError.model_validate(ours))
    again = quality_event(QualitySource.WEEKLY, Bundle.load(), found, NOW + timedelta(hours=3))
    assert again.metadata.uid == event.metadata.uid, "a run that is repeated the same day tells nothing new"
    more = quality_event(QualitySource.WEEKLY, Bundle.load(), [*found, Finding(subject="b", measure="fnr")], NOW)
    assert more.metadata.uid != event.metadata.uid
    with pytest.raises(ValueError, match="nothing to announce"):
        quality_event(QualitySource.WEEKLY, Bundle.load(), [], NOW)
