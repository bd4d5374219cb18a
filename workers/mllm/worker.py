"""The MLLM stage as a consumer group."""

from __future__ import annotations

from pipeline.app import WorkerSpec
from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.backends.base import Verifier
from pipeline.detection.mllm.backends.openai import OpenAIVerifier
from pipeline.detection.mllm.backends.unconfigured import UnconfiguredVerifier
from pipeline.settings import FleetSettings
from pipeline.streaming.codec import Identity
from pipeline.streaming.executors.threads import Threads
from pipeline.streaming.plan import Plan
from schemas.media import AnomalousMedia
from schemas.topics import Topic
from workers.lanes import two_lanes
from workers.mllm.settings import MllmSettings
from workers.mllm.stage import STAGE, MllmStage


def make_verifier(settings: MllmSettings) -> Verifier:
    """The configured back end."""
    return (
        OpenAIVerifier(settings.openai) if settings.openai and settings.backend == "openai" else UnconfiguredVerifier()
    )


def build(fleet: FleetSettings, settings: MllmSettings) -> WorkerSpec:
    """Everything but the broker."""
    bundle = Bundle.load(fleet.bundle)
    stage = MllmStage(bundle, make_verifier(settings), fleet.store.url)
    lanes = two_lanes(
        Topic.ANOMALOUS_PRIORITY,
        Topic.ANOMALOUS,
        slots=settings.concurrency,
        weight=settings.priority_weight,
        normal_max_age_s=settings.normal_max_age_s,
    )
    plan = Plan(
        name=STAGE.value,
        lanes=lanes,
        cost=lambda item: item.value.facts.width * item.value.facts.height,
        fallback=stage.fallback,
        tenant_quota=lambda _: 2**31,
    )
    executor = Threads(stage, settings.concurrency)
    return WorkerSpec(STAGE, plan, AnomalousMedia, identity, executor, bundle.version)


def identity(media: AnomalousMedia) -> Identity:
    """As stamped at admission."""
    return Identity(media.admission.media_id, media.admission.tenant, media.admission.source or "")
