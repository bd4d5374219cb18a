"""The spectral stage as a consumer group."""

from __future__ import annotations

from functools import partial

from pipeline.app import WorkerSpec
from pipeline.detection.bundle import Bundle
from pipeline.guarded_process import Limits
from pipeline.settings import FleetSettings
from pipeline.streaming.codec import Identity
from pipeline.streaming.executors.processes import Processes
from pipeline.streaming.plan import Plan
from schemas.media import SuspectMedia
from schemas.topics import Topic
from workers.lanes import two_lanes
from workers.spectral.settings import SpectralSettings
from workers.spectral.stage import STAGE, SpectralFallback, SpectralStage


def build(fleet: FleetSettings, settings: SpectralSettings) -> WorkerSpec:
    """Everything but the broker."""
    bundle = Bundle.load(fleet.bundle)
    lanes = two_lanes(
        Topic.SUSPECT_PRIORITY,
        Topic.SUSPECT,
        slots=settings.processes * fleet.runner.batch.max_items,
        weight=settings.priority_weight,
        normal_max_age_s=settings.normal_max_age_s,
    )
    plan = Plan(
        name=STAGE.value,
        lanes=lanes,
        cost=lambda item: item.value.facts.width * item.value.facts.height,
        fallback=SpectralFallback(bundle, fleet.store),
        tenant_quota=lambda _: 2**31,
    )
    make_stage = partial(SpectralStage, fleet.bundle, settings, fleet.store)
    limits = Limits(memory_bytes=settings.memory_bytes)
    executor = Processes(make_stage, settings.processes, settings.item_timeout_s, limits=limits)
    return WorkerSpec(STAGE, plan, SuspectMedia, identity, executor, bundle.version)


def identity(suspect: SuspectMedia) -> Identity:
    """As stamped at admission."""
    return Identity(suspect.admission.media_id, suspect.admission.tenant, suspect.admission.source or "")
