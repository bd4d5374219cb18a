"""What `evaluate --through-fleet` needs: topics of its own, a fleet of this machine, a broker if none is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import orjson

from pipeline.detection.bundle import Bundle
from pipeline.evaluation.fleet_run import FleetRun
from pipeline.evaluation.layouts import Dataset
from pipeline.evaluation.scoring import ScoringJob
from pipeline.evaluation.scoring_files import SCORES_FILE, Progress
from pipeline.settings import load_settings
from pipeline.streaming.kafka.admin import TopicAdmin
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import TOPICS
from schemas.types import StageName
from workers.fleet import Fleet
from workers.settings import Settings

_PARTITIONS = 4


def score_through_fleet(
    job: ScoringJob,
    dataset: Dataset,
    out_dir: Path,
    bootstrap: str | None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Score the dataset by a fleet of this machine, under a topic prefix that nothing else uses.

    Args:
        job: whose bundle the fleet loads.
        dataset: image files on this machine.
        out_dir: of this run; evidence, logs and the broker's data go below it.
        bootstrap: Kafka to use; None starts one for the run.
        on_progress: called after every image.

    Returns:
        The scores file.

    Raises:
        FleetFailed, FleetSilent, KafkaUnavailable, AdminError: the fleet or Kafka.
        ScoresError, DatasetError: as `score_dataset`.
    """
    home = out_dir.resolve()
    if (home / SCORES_FILE).exists():
        return home / SCORES_FILE
    run_id = uuid4().hex[:8]
    with ExitStack() as stack:
        kafka = _kafka(bootstrap, home, run_id, stack)
        TopicAdmin(kafka.common()).apply(TOPICS, _PARTITIONS, 1, kafka.topic_prefix)
        replicas = dict.fromkeys(StageName, 1)
        environment = _environment(job, dataset, kafka, home)
        fleet = stack.enter_context(Fleet(replicas, environment, home / "logs"))
        fleet.wait_ready()
        run = FleetRun(kafka, Bundle.load(job.bundle_path), run_id, fleet.check)
        return run.score(job, dataset, home, on_progress=on_progress)


def _kafka(bootstrap: str | None, home: Path, run_id: str, stack: ExitStack) -> KafkaSettings:
    base = load_settings(Settings).kafka
    if bootstrap is None:
        bootstrap = stack.enter_context(EmbeddedKafka(data_dir=home / "kafka")).bootstrap
    return base.model_copy(update={"bootstrap": bootstrap, "topic_prefix": f"evaluate-{run_id}"})


def _environment(job: ScoringJob, dataset: Dataset, kafka: KafkaSettings, home: Path) -> dict[str, str]:
    root = dataset.root.resolve()
    roots = [root if root.is_dir() else root.parent]
    if dataset.options.reals is not None:
        roots.append(dataset.options.reals.resolve())
    named = {"MEDIASIEVE_BUNDLE": str(job.bundle_path.resolve())} if job.bundle_path else {}
    return named | {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
        "MEDIASIEVE_CLASSIFIER__AUDIT_SAMPLE__SHARE": "0",
        "MEDIASIEVE_CLASSIFIER__FETCH__FILE_ROOTS": orjson.dumps([str(path) for path in roots]).decode(),
    }
