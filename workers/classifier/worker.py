"""The classifier as a consumer group."""

from __future__ import annotations

from pipeline.app import WorkerSpec
from pipeline.detection.bundle import Bundle
from pipeline.settings import FleetSettings
from pipeline.streaming.batch import Lane
from pipeline.streaming.executors.threads import Threads
from pipeline.streaming.plan import Plan
from schemas.media import MediaReference
from schemas.topics import RETRY_DELAYS_S, Topic
from workers.classifier.admission import identity
from workers.classifier.settings import ClassifierSettings
from workers.classifier.stage import STAGE, ClassifierStage

TOPICS = (Topic.INGEST, *RETRY_DELAYS_S)


def build(fleet: FleetSettings, settings: ClassifierSettings) -> WorkerSpec:
    """Everything but the broker."""
    bundle = Bundle.load(fleet.bundle)
    stage = ClassifierStage(bundle, settings, fleet.store, fleet.shadow)
    lanes = (
        # A fetch that hangs holds back its partition's commits until its time is over: what the other slots finish
        # meanwhile must have room, or the dead host stalls them after all.
        Lane("main", (Topic.INGEST,), max_in_flight=settings.slots, max_held=32 * settings.slots),
        *(
            Lane(topic.value, (topic,), settings.retry_slots, max_held=2 * settings.retry_slots, delayed=True)
            for topic in RETRY_DELAYS_S
        ),
    )
    slots = settings.slots + len(RETRY_DELAYS_S) * settings.retry_slots
    plan = Plan(
        name=STAGE.value,
        lanes=lanes,
        cost=lambda item: min(item.value.size_bytes or 1_000_000, settings.fetch.max_bytes),
        fallback=stage.fallback,
        tenant_quota=settings.quota,
        edge=True,
    )
    return WorkerSpec(STAGE, plan, MediaReference, identity, Threads(stage, slots), bundle.version)
