"""What `plan` predicts from scores is what a fleet under the planned policy does."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.detection.bundle import DEFAULT_BUNDLE, Bundle, seal
from pipeline.detection.policy import Fusion, Policy
from pipeline.evaluation.plan import Budgets, Plan, make_plan
from pipeline.evaluation.sample import Sample
from pipeline.evaluation.score_row import ScoreRow
from pipeline.evaluation.scoring import Scorer, ScoringJob
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.decision import Decision, Mode, Outcome
from schemas.types import StageName
from tests.fault.inputs import BROKEN, make_media
from tests.support.fleet import running_fleet
from tests.support.kafka import TIMEOUT_S
from tests.support.waiting import wait_until

BUDGETS = Budgets(fnr1=0.25, fpr2=0.4, block_fpr=0.2)
"""Wide, so that a few dozen images leave by every way."""
WITHIN = 0.02


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("planned") / "media"
    directory.mkdir()
    make_media(directory)
    return directory


@pytest.fixture(scope="module")
def rows(media: Path) -> list[ScoreRow]:
    """Every second image is upsampled, and labelled as generated; two cannot be decoded."""
    scorer = Scorer(ScoringJob())
    return [row for path in _files(media) for row in scorer(_sample(path)).rows]


def _files(media: Path) -> list[Path]:
    return sorted(path for path in media.iterdir() if path.is_file())


def _sample(path: Path) -> Sample:
    number = -1 if path.name in BROKEN else int(path.stem)
    kind = "made" if number % 2 and number > 0 else "real"
    return Sample(path.name, kind == "made", path, source=f"{kind}-{number % 3}", group=path.name)


def _planned_bundle(directory: Path, policy: Policy) -> Path:
    """The shipped models under another policy."""
    shutil.copytree(DEFAULT_BUNDLE, directory)
    (directory / Bundle.load(directory).manifest.policy).write_text(policy.model_dump_json())
    seal(directory)
    return directory


def test_the_predicted_load_is_the_fleet_s(
    kafka: EmbeddedKafka, media: Path, rows: list[ScoreRow], tmp_path: Path
) -> None:
    """In fused mode, where all but the broken reach stage 2; a unit test compares the stages in both modes."""
    base = Policy(version="base", fusion=Fusion(prior=Bundle.load().manifest.prior))
    plan = make_plan(rows, BUDGETS, Mode.FUSED, base)
    bundle = _planned_bundle(tmp_path / "bundle", plan.policy)
    shutil.copytree(media, tmp_path / "media")
    with running_fleet(kafka, tmp_path, dict.fromkeys(StageName, 1), {"MEDIASIEVE_BUNDLE": str(bundle)}) as fleet:
        sent = [fleet.send(fleet.uri(path.name)) for path in _files(media)]
        wait_until(lambda: not fleet.mailbox.missing(sent), 2 * TIMEOUT_S, "all decisions")
        decisions = [fleet.decided(media_id).decision for media_id in sent]
    _compare(plan, decisions, sum(row.synthetic for row in rows) / len(rows))


def _compare(plan: Plan, decisions: Sequence[Decision], prevalence: float) -> None:
    load, count = plan.load(prevalence), len(decisions)
    stages = Counter(d.stage_exited for d in decisions)
    beyond_1 = sum(bool(d.scores) and d.stage_exited is not StageName.CLASSIFIER for d in decisions) / count
    escalated = sum(d.outcome is Outcome.ESCALATE for d in decisions) / count
    assert beyond_1 == pytest.approx(load.stage2.value, abs=WITHIN)
    assert stages[StageName.MLLM] / count == pytest.approx(load.stage3.value, abs=WITHIN)
    assert escalated == pytest.approx(load.escalated_most.value, abs=WITHIN)
    assert {d.mode for d in decisions} == {plan.policy.mode}
    assert 0.0 < load.stage3.value < load.stage2.value, "or the comparison would show nothing"
    assert sum(d.outcome is Outcome.PASS for d in decisions) > count / 10
