"""The MLLM stage as a consumer group."""

from __future__ import annotations

import math

from pipeline.app import WorkerSpec
from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.backends.base import Verifier
from pipeline.detection.mllm.backends.openai import OpenAIChat
from pipeline.detection.mllm.backends.transformers import TransformersModel
from pipeline.detection.mllm.backends.unconfigured import UnconfiguredVerifier
from pipeline.detection.mllm.chat import ChatModel
from pipeline.detection.mllm.dialogue import DialogueVerifier
from pipeline.detection.mllm.prompt import Prompts
from pipeline.detection.mllm.verdict import MllmCalibration
from pipeline.settings import FleetSettings
from pipeline.streaming.codec import Identity
from pipeline.streaming.executors.threads import Threads
from pipeline.streaming.plan import Plan
from schemas.media import AnomalousMedia
from schemas.topics import Topic
from workers.lanes import two_lanes
from workers.mllm.limits import GatedVerifier, LimitedChatModel
from workers.mllm.memory import steady_allocator
from workers.mllm.settings import MllmSettings
from workers.mllm.stage import STAGE, MllmStage


def make_verifier(settings: MllmSettings, bundle: Bundle) -> Verifier:
    """The configured back end behind its limits, asked with the bundle's prompts.

    Raises:
        BundleError: the bundle's prompts or its calibration cannot be used.
    """
    chat = make_chat_model(settings)
    if chat is None:
        return UnconfiguredVerifier()
    limited = LimitedChatModel(chat, settings.limits, settings.concurrency)
    prompts, calibration = Prompts.of(bundle), MllmCalibration.of(bundle)
    dialogue = DialogueVerifier(limited, prompts, settings.dialogue, calibration, backend=settings.backend)
    return GatedVerifier(dialogue, limited)


def make_chat_model(settings: MllmSettings) -> ChatModel | None:
    """The back end without limits; None for `unconfigured`."""
    if settings.backend == "openai" and settings.openai is not None:
        return OpenAIChat(settings.openai)
    if settings.backend == "transformers" and settings.transformers is not None:
        return TransformersModel(settings.transformers)
    return None


def build(fleet: FleetSettings, settings: MllmSettings) -> WorkerSpec:
    """Everything but the broker."""
    steady_allocator()
    bundle = Bundle.load(fleet.bundle)
    verifier = make_verifier(settings, bundle)
    stage = MllmStage(
        bundle,
        verifier,
        fleet.store,
        max_wait_s=settings.max_wait_s,
        max_age_s=settings.max_age_s or math.inf,
        shadow=fleet.shadow,
    )
    slots = settings.concurrency + settings.prepare_ahead
    lanes = two_lanes(
        Topic.ANOMALOUS_PRIORITY,
        Topic.ANOMALOUS,
        slots=slots,
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
    executor = Threads(stage, slots)
    readings = verifier.readings if isinstance(verifier, GatedVerifier) else tuple
    return WorkerSpec(STAGE, plan, AnomalousMedia, identity, executor, bundle.version, readings)


def identity(media: AnomalousMedia) -> Identity:
    """As stamped at admission."""
    return Identity(media.admission.media_id, media.admission.tenant, media.admission.source or "")
