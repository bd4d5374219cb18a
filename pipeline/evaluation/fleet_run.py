"""A dataset through a running fleet: references go in, decisions come back as score rows.

The fleet scores images as delivered, and only as far as they go: one that stage 1 releases has no spectral score.
Rows are written in the dataset's order; as many images are on their way as `in_flight` says, so memory is flat and a
run that was stopped goes on.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO
from uuid import NAMESPACE_URL, uuid5

import orjson

from pipeline.detection.bundle import Bundle
from pipeline.detection.policy import codec_of
from pipeline.evaluation.layouts import Dataset, DatasetError, read_bytes
from pipeline.evaluation.sample import Sample
from pipeline.evaluation.score_row import ScoreRow, ScoresError, Status
from pipeline.evaluation.scoring import (
    AS_DELIVERED,
    ScoringJob,
    failed_rows,
    labelled_row,
    overlap_check,
    run_facts,
)
from pipeline.evaluation.scoring_files import (
    OVERLAP_FILE,
    PART_FILE,
    SCORES_FILE,
    STAGES,
    TIMES_FILE,
    Progress,
    check_same_run,
    former_progress,
    remaining,
)
from pipeline.media.decode import decode_image
from pipeline.media.errors import MediaError
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordReader, RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import OutRecord, RawRecord
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter
from schemas.decision import Decision
from schemas.envelope import new_trace
from schemas.ocsf import machine_decision
from schemas.topics import DECISION_TOPICS, Topic
from schemas.types import StageName
from schemas.wire import decode

FLEET_FILE = "fleet.json"
PRODUCER = "evaluation"
ANSWER_TOPICS = (*DECISION_TOPICS.values(), Topic.DEAD_LETTER)


class FleetSilent(Exception):
    """No answer came for so long that none is to be expected."""


@dataclass(slots=True)
class _Sent:
    sample: Sample
    row: ScoreRow | None = None
    overlap: str = ""
    refused: bool = False


@dataclass(slots=True)
class Exits:
    """What the fleet decided, for comparison with a plan: counts of outcome and of the stage that decided, by class."""

    outcomes: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)

    def add(self, synthetic: bool, decision: Decision) -> None:
        """Count one decision."""
        kind = "generated" if synthetic else "real"
        self.outcomes[f"{kind} {decision.outcome}"] += 1
        self.stages[f"{kind} {decision.stage_exited}"] += 1

    def counts(self) -> dict[str, dict[str, int]]:
        """Plain dictionaries: `dataclasses.asdict` makes nonsense of a Counter before Python 3.12."""
        return {"outcomes": dict(self.outcomes), "stages": dict(self.stages)}


class FleetRun:
    """Publishes, reads, writes. The fleet's workers run elsewhere; `check` raises when one has ended."""

    def __init__(self, kafka: KafkaSettings, bundle: Bundle, run_id: str, check: Callable[[], None]) -> None:
        """`run_id` makes media ids that no other run has."""
        self._kafka = kafka
        self._names = TopicNames(kafka.topic_prefix)
        self._bundle = bundle
        self._run_id = run_id
        self._check = check
        self._writer = RecordWriter(kafka)
        self._sent: dict[str, _Sent] = {}
        self._order: deque[_Sent] = deque()
        self.exits = Exits()
        self.progress = Progress()

    def score(
        self,
        job: ScoringJob,
        dataset: Dataset,
        out_dir: Path,
        *,
        in_flight: int = 2000,
        silence_s: float = 300.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Path:
        """Write `scores.jsonl` of the dataset as the fleet decides it.

        Args:
            job: bundle and what to do with training images; it has no variants.
            dataset: of image files that the workers may read.
            out_dir: of this run alone.
            in_flight: images published and not answered.
            silence_s: longest wait for the next answer.
            on_progress: called after every image.

        Raises:
            FleetSilent: no answer for `silence_s`.
            ScoresError, DatasetError: as `score_dataset`.
        """
        out_dir.mkdir(parents=True, exist_ok=True)
        check_same_run(out_dir, run_facts(job, dataset) | {"scored_by": "fleet"})
        finished, part = out_dir / SCORES_FILE, out_dir / PART_FILE
        if finished.exists():
            return finished
        self.progress = former_progress(out_dir)
        samples = remaining(dataset.samples(), part, out_dir / OVERLAP_FILE, {False: 1, True: 1}, self.progress)
        topics = [self._names.physical(topic) for topic in ANSWER_TOPICS]
        try:
            with (
                RecordReader(self._kafka, topics) as reader,
                part.open("a", encoding="utf-8") as rows,
                (out_dir / OVERLAP_FILE).open("a", encoding="utf-8") as overlaps,
            ):
                self._exchange(
                    self._published(samples, job), reader, (rows, overlaps), (in_flight, silence_s), on_progress
                )
        finally:
            (out_dir / TIMES_FILE).write_text(json.dumps(asdict(self.progress)), encoding="utf-8")
            (out_dir / FLEET_FILE).write_text(json.dumps(self.exits.counts(), indent=2), encoding="utf-8")
        if self.progress.images == self.progress.refused:
            raise ScoresError(f"{dataset.root}: every image is in the bundle's training list; evaluate on others")
        part.rename(finished)
        return finished

    def _exchange(
        self,
        published: Iterator[_Sent],
        reader: RecordReader,
        files: tuple[IO[str], IO[str]],
        limits: tuple[int, float],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        in_flight, silence_s = limits
        heard_s = time.monotonic()
        exhausted = False
        while True:
            while not exhausted and len(self._order) < in_flight:
                sent = next(published, None)
                exhausted = sent is None
                if sent is None:
                    break
                self._order.append(sent)
            self._writer.flush()
            self._write_answered(files, on_progress)
            if exhausted and not self._order:
                return
            self._check()
            record = reader.poll(0.2)
            while record is not None:
                if self._take(record):
                    heard_s = time.monotonic()
                record = reader.poll(0.0)
            if time.monotonic() - heard_s > silence_s:
                waiting = sum(sent.row is None for sent in self._order)
                raise FleetSilent(f"no answer for {silence_s:.0f} s, {waiting} images wait; see the workers' logs")

    def _published(self, samples: Iterator[Sample], job: ScoringJob) -> Iterator[_Sent]:
        """Send each reference when it is asked for; what was trained on is not sent unless allowed."""
        topic = self._names.physical(Topic.INGEST)
        overlap_of = overlap_check(self._bundle)
        for sample in samples:
            if sample.row is not None:
                raise DatasetError(f"{sample.path}: lies in a parquet file; the fleet reads image files, extract them")
            overlap = _overlap(sample, job, overlap_of) if overlap_of else ""
            sent = _Sent(sample, overlap=overlap, refused=bool(overlap) and not job.allow_training_images)
            if not sent.refused:
                media_id = uuid5(NAMESPACE_URL, f"{self._run_id}/{sample.key}").hex
                self._sent[media_id] = sent
                fields = {"uri": sample.path.resolve().as_uri(), "media_id": media_id, "source": PRODUCER}
                if sample.sha256:
                    fields["sha256"] = sample.sha256
                trace = new_trace(media_id).format().encode()
                value = orjson.dumps(fields)
                self._writer.write(OutRecord(topic, media_id.encode(), value, (("traceparent", trace),)))
            yield sent

    def _take(self, record: RawRecord) -> bool:
        """Turn an answer into the row of its image; False for one of another run, a second one, or a review."""
        if record.tp.topic == self._names.physical(Topic.DEAD_LETTER):
            letter = decode(DeadLetter, record.header(DEAD_LETTER_HEADER) or b"")
            sent = self._sent.pop(letter.media_id, None)
            if sent is not None:
                detail = f"dead letter at {letter.stage}: {letter.code}: {letter.detail}"
                (sent.row,) = failed_rows(sent.sample, (AS_DELIVERED,), detail)
            return sent is not None
        decision = machine_decision(record.value)
        sent = self._sent.pop(decision.admission.media_id, None) if decision is not None else None
        if decision is None or sent is None:
            return False
        sent.row = row_of(sent.sample, decision, self._bundle)
        self.exits.add(sent.sample.synthetic, decision)
        self._time(decision)
        return True

    def _time(self, decision: Decision) -> None:
        """Fetching and decoding are in the time of the stage that does them."""
        self.progress.add_times({t.stage: t.worked_ms for t in decision.timings if t.stage in STAGES} | {"decode": 0.0})

    def _write_answered(self, files: tuple[IO[str], IO[str]], on_progress: Callable[[Progress], None] | None) -> None:
        rows, overlaps = files
        while self._order and (self._order[0].row is not None or self._order[0].refused):
            sent = self._order.popleft()
            if sent.row is not None:
                rows.write(sent.row.model_dump_json() + "\n")
                self.progress.failed += sent.row.status is Status.FAILED
            if sent.overlap:
                rows.flush()
                line = {"key": sent.sample.key, "training": sent.overlap, "refused": sent.refused}
                overlaps.write(json.dumps(line) + "\n")
                overlaps.flush()
            self.progress.images += 1
            self.progress.refused += sent.refused
            if on_progress:
                on_progress(self.progress)


def row_of(sample: Sample, decision: Decision, bundle: Bundle) -> ScoreRow:
    """The score row of a decision. Without a classifier score it failed; `detail` says how the fleet decided."""
    scores = {score.stage: score for score in decision.scores}
    first, second = scores.get(StageName.CLASSIFIER), scores.get(StageName.SPECTRAL)
    reason = decision.reasons[0]
    how = f"{decision.outcome} at {decision.stage_exited}: {reason.code}: {reason.detail}"
    if first is None or first.score is None:
        return failed_rows(sample, (AS_DELIVERED,), how)[0]
    silent = second is not None and second.score is None
    stratum = (second.note or "") if second is not None and not silent else ""
    update = {
        "status": Status.NOT_APPLICABLE if silent else Status.SCORED,
        "stratum": stratum,
        "classifier": first.score,
        "spectral": second.score if second else None,
        "fused": bundle.policy.fuse12(first.score, second.score if second else None, codec_of(stratum)),
        "p_value": second.p_value if second else None,
        "detail": how[:512],
    }
    if decision.facts is not None:
        names = ("sha256", "format", "jpeg_quality", "width", "height", "size_bytes")
        update |= {name: getattr(decision.facts, name) for name in names}
    return labelled_row(sample, AS_DELIVERED).model_copy(update=update)


def _overlap(sample: Sample, job: ScoringJob, overlap_of: Callable[..., str]) -> str:
    try:
        return overlap_of(decode_image(read_bytes(sample), job.limits))
    except MediaError:  # the fleet says what is wrong with it
        return ""
