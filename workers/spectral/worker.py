"""The spectral stage as a consumer group."""

from __future__ import annotations

from functools import partial

from pipeline.app import WorkerSpec
from pipeline.detection.bundle import Bundle
from pipeline.detection.shadow import Shadow
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.guarded_process import Limits
from pipeline.media.objects import Objects
from pipeline.observability.metrics import Metrics
from pipeline.settings import FleetSettings
from pipeline.streaming.codec import Identity, TopicNames
from pipeline.streaming.executors.processes import Processes
from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.plan import Plan
from schemas.media import SuspectMedia
from schemas.topics import Topic
from workers.adaptation.keys import load_public_keys
from workers.adaptation.settings import ReferenceSettings
from workers.adaptation.store import ReferenceStore
from workers.lanes import two_lanes
from workers.spectral.following import Following
from workers.spectral.settings import SpectralSettings
from workers.spectral.stage import STAGE, SpectralFallback, SpectralStage


def build(fleet: FleetSettings, settings: SpectralSettings, references: ReferenceSettings | None = None) -> WorkerSpec:
    """Everything but the broker.

    Raises:
        SettingsInvalid: the public keys of `references` cannot be used.
        BundleError, StoreUnavailable: bundle or store cannot.
    """
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
        fallback=SpectralFallback(bundle, fleet.store, Shadow.load(fleet.shadow, bundle)),
        tenant_quota=lambda _: 2**31,
    )
    make_stage = partial(SpectralStage, fleet.bundle, settings, fleet.store, fleet.shadow)
    limits = Limits(memory_bytes=settings.memory_bytes)
    side_input = following(fleet, bundle, references or ReferenceSettings())
    executor = Processes(make_stage, settings.processes, settings.item_timeout_s, limits=limits, side_input=side_input)
    measure = partial(_own_reference_alone, bundle) if side_input is None else side_input.measure
    return WorkerSpec(STAGE, plan, SuspectMedia, identity, executor, bundle.version, measure=measure)


def following(fleet: FleetSettings, bundle: Bundle, settings: ReferenceSettings) -> Following | None:
    """What keeps the references current; None where no public key says whom to trust."""
    if settings.public_keys is None or bundle.manifest.spectral is None:
        return None
    keys = load_public_keys(settings)
    base = SpectralReference.load(bundle.path(bundle.manifest.spectral.file)).content_hash
    store = ReferenceStore(Objects(fleet.store.url, fleet.store.options))
    topic = TopicNames(fleet.kafka.topic_prefix).physical(Topic.REFERENCES)
    return Following(base, keys, store, settings, lambda: RecordReader(fleet.kafka, [topic]))


def _own_reference_alone(bundle: Bundle, metrics: Metrics) -> None:
    """Nobody is followed."""
    if bundle.manifest.spectral is not None:
        own = SpectralReference.load(bundle.path(bundle.manifest.spectral.file)).content_hash
        metrics.say("mediasieve_reference_info", own, own, "")


def identity(suspect: SuspectMedia) -> Identity:
    """As stamped at admission."""
    return Identity(suspect.admission.media_id, suspect.admission.tenant, suspect.admission.source or "")
