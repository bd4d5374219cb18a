"""The adaptation worker: settings become a loop over the topic of reviews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from pipeline.evidence.log.errors import Untrusted
from pipeline.exit_codes import EXIT_LOG_CORRUPT, EXIT_SOURCE_FAILED, EXIT_UNKNOWN_VERSION
from pipeline.media.errors import ContentCorrupt, ContentMissing, StoreUnavailable
from pipeline.observability.metrics import Metrics
from pipeline.process import WorkerProcess
from pipeline.streaming.clock import Clock
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import KafkaUnavailable, RecordReader
from pipeline.streaming.transport import RawRecord
from pipeline.streaming.watch import Watch
from schemas.reference import ReferencePointer
from schemas.topics import Topic
from schemas.wire import UnknownMajorVersion, encode
from workers.adaptation.history import withdrawn_families
from workers.adaptation.learner import Learner
from workers.adaptation.measure import Measured
from workers.adaptation.publication import PublicationRefused, Publisher
from workers.adaptation.records import Candidate
from workers.adaptation.samples import Measures
from workers.adaptation.settings import Promotion
from workers.adaptation.wiring import Workshop
from workers.settings import Settings

NAME = "adaptation"
_ACTOR = "adaptation"
_POLL_S = 0.2

log = structlog.get_logger("mediasieve")


@dataclass(frozen=True, slots=True)
class TurningMeasures:
    """Tells the watch before each image, so that a long trial is not taken for a loop that hangs."""

    measures: Measures
    watch: Watch

    def measure(self, data: bytes) -> Measured:
        """See Measures."""
        self.watch.turn(0.0, 0, 1)
        return self.measures.measure(data)


class Reviews(Protocol):
    """What is needed of `RecordReader`."""

    def poll(self, timeout_s: float) -> RawRecord | None:
        """The next record."""


def run_adaptation(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the process's exit code.

    0: drained. 6: a record of a newer major version. 7: the brokers do not answer. 9: the history of references holds
    something that no trusted key has signed.

    Raises:
        SettingsInvalid, BundleError, MasterKeyError, StoreUnavailable: nothing was started.
    """
    workshop = Workshop.open(settings)
    publisher = workshop.publisher()
    process = WorkerProcess.start(NAME, settings)
    measurer = workshop.measurer()
    learner = Learner(
        archive=workshop.archive,
        store=workshop.store,
        builder=workshop.builder(TurningMeasures(measurer, process.watch)),
        current=partial(workshop.current, publisher),
        offer=partial(offer, publisher, settings.references.promotion, metrics=process.metrics),
        tenants=settings.references.tenants,
        turn=partial(process.watch.turn, 0.0, 0, 1),
        metrics=process.metrics,
    )
    topic = TopicNames(settings.kafka.topic_prefix).physical(Topic.REVIEWS)
    try:
        with RecordReader(settings.kafka, [topic]) as reader:
            mend(settings, publisher)
            process.watch.warm()
            loop(
                reader,
                learner,
                clock=process.clock,
                watch=process.watch,
                retry_s=settings.references.retry_s,
                stopping=process.stopping,
            )
    except (UnknownMajorVersion, KafkaUnavailable, Untrusted, ContentCorrupt, ContentMissing) as error:
        return process.failed(_exit_code(error), error)
    finally:
        measurer.close()
    return process.drained()


def mend(settings: Settings, publisher: Publisher) -> None:
    """Announce the newest pointer where the topic does not end with it: its publication ended in between.

    Raises:
        KafkaUnavailable, Untrusted, StoreUnavailable: as `Publisher.announce_again`.
    """
    head = publisher.head()
    if head is None:
        return
    topic = TopicNames(settings.kafka.topic_prefix).physical(Topic.REFERENCES)
    with RecordReader(settings.kafka, [topic]) as reader:
        last = {record.key: record.value for record in reader.to_end()}
    if last.get(publisher.base.encode()) != encode(head):
        log.warning("reference_announced_again", sequence=head.sequence)
        publisher.announce_again()


def loop(
    reader: Reviews, learner: Learner, *, clock: Clock, watch: Watch, retry_s: float, stopping: Callable[[], bool]
) -> None:
    """Until `stopping()`: read what came; when nothing comes, look again for what waits, and learn."""
    look_again_s = 0.0
    while not stopping():
        watch.turn(0.0, 0, 1)
        learner.metrics.set("mediasieve_adaptation_waiting_reviews", learner.waiting)
        record = reader.poll(_POLL_S)
        try:
            if record is not None:
                learner.take(record)
            elif clock.monotonic_s() >= look_again_s:
                look_again_s = clock.monotonic_s() + retry_s
                learner.retry()
                learner.learn()
        except StoreUnavailable as error:
            look_again_s = clock.monotonic_s() + retry_s
            log.warning("adaptation_waits", detail=str(error))


def offer(publisher: Publisher, promotion: Promotion, candidate: Candidate, metrics: Metrics) -> None:
    """Do with a candidate what the settings say, once: not if it was ever published.

    A family that a person rolled back, and a candidate that would displace one that watches, wait for a person.
    """
    history = publisher.history()
    if any(candidate.artefact in (pointer.active, pointer.shadow) for pointer in history):
        return
    gate = candidate.gate
    reason = (
        f"{gate.samples} reviewed samples of {candidate.family}, AUC {_rate(gate.old_auc)} -> {_rate(gate.new_auc)}"
    )
    why = _waits_because(promotion, candidate, history)
    result = "waits"
    try:
        if why:
            log.info("candidate_waits", version=candidate.version, family=candidate.family, why=why)
        elif promotion is Promotion.ACTIVE:
            publisher.promote(candidate, _ACTOR, reason)
            result = "promoted"
        else:
            publisher.shadow(candidate, _ACTOR, reason)
            result = "watches"
    except PublicationRefused as error:
        log.warning("publication_refused", version=candidate.version, detail=str(error))
        result = "refused"
    metrics.count("mediasieve_adaptation_offers_total", result)


def _waits_because(promotion: Promotion, candidate: Candidate, history: Sequence[ReferencePointer]) -> str:
    """Why a person must publish it; empty when the worker may."""
    if promotion is Promotion.MANUAL:
        return "references.promotion is manual"
    if candidate.family in withdrawn_families(history):
        return "its family was rolled back"
    if history and history[-1].shadow is not None:
        return "another candidate watches"
    return ""


def _rate(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _exit_code(error: Exception) -> int:
    match error:
        case UnknownMajorVersion():
            return EXIT_UNKNOWN_VERSION
        case KafkaUnavailable():
            return EXIT_SOURCE_FAILED
        case _:
            return EXIT_LOG_CORRUPT
