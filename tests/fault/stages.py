"""Stages that do as a media id says: `deadly-*` kills the process it runs in, `slow-*` takes its time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.app import WorkerSpec
from pipeline.detection.bundle import Bundle
from pipeline.media.content_store import open_store
from pipeline.media.store_settings import StoreSettings
from pipeline.streaming.batch import Lane
from pipeline.streaming.executors.inline import Inline
from pipeline.streaming.executors.processes import Processes
from pipeline.streaming.plan import Plan
from pipeline.streaming.stage import GiveUpCause, Item, Outcome
from schemas.decision import ReasonCode
from schemas.media import MediaReference, SuspectMedia
from schemas.topics import Topic
from schemas.types import StageName
from workers.classifier.admission import admit, identity
from workers.classifier.settings import ClassifierSettings
from workers.settings import Settings
from workers.spectral.settings import SpectralSettings
from workers.spectral.stage import SpectralStage
from workers.spectral.worker import build as build_spectral
from workers.verdicts import CaseFile, Verdicts, reason

SLOW_S = 0.02


def obey(media_id: str) -> None:
    """Die or dawdle, if the name says so."""
    if media_id.startswith("deadly-"):
        os.kill(os.getpid(), signal.SIGKILL)
    if media_id.startswith("slow-"):
        time.sleep(SLOW_S)


class DirectStage:
    """Escalates every reference unseen: a classifier without fetch, decode and model, in the consumer process."""

    def __init__(self, bundle: Bundle, settings: ClassifierSettings, store: StoreSettings) -> None:
        self._bundle = bundle
        self._settings = settings
        self._verdicts = Verdicts(StageName.CLASSIFIER, bundle.policy, open_store(store))

    def open(self) -> None: ...

    def close(self) -> None: ...

    def process(self, batch: Sequence[Item[MediaReference]]) -> Sequence[Outcome]:
        return [self._one(item) for item in batch]

    def fallback(self, item: Item[MediaReference], cause: GiveUpCause, detail: str) -> Outcome:
        case = CaseFile(admit(item, None, self._bundle, self._settings))
        return self._verdicts.escalated(case, [reason(ReasonCode(cause.value), detail)])

    def _one(self, item: Item[MediaReference]) -> Outcome:
        obey(item.media_id)
        case = CaseFile(admit(item, None, self._bundle, self._settings))
        return self._verdicts.escalated(case, [reason(ReasonCode.UNCERTAIN, "not looked at")])


def direct_classifier(settings: Settings) -> WorkerSpec:
    """The classifier's group and topic around DirectStage."""
    bundle = Bundle.load(settings.bundle)
    stage = DirectStage(bundle, settings.classifier, settings.store)
    plan = Plan(
        name=StageName.CLASSIFIER.value,
        lanes=(Lane("main", (Topic.INGEST,), max_in_flight=8, max_held=64),),
        cost=lambda _: 1,
        fallback=stage.fallback,
        tenant_quota=lambda _: 2**31,
        edge=True,
    )
    return WorkerSpec(StageName.CLASSIFIER, plan, MediaReference, identity, Inline(stage), bundle.version)


class DeadlySpectralStage(SpectralStage):
    """The real one, until a media id says otherwise."""

    def process(self, batch: Sequence[Item[SuspectMedia]]) -> Sequence[Outcome]:
        for item in batch:
            obey(item.media_id)
        return super().process(batch)


def make_deadly(bundle: Path | None, settings: SpectralSettings, store: StoreSettings) -> DeadlySpectralStage:
    """Runs in the worker's child process."""
    return DeadlySpectralStage(bundle, settings, store)


def deadly_spectral(settings: Settings) -> WorkerSpec:
    """The real spectral worker, its processes at the mercy of media ids."""
    spectral = settings.spectral
    make_stage = partial(make_deadly, settings.bundle, spectral, settings.store)
    executor = Processes(make_stage, spectral.processes, spectral.item_timeout_s)
    return replace(build_spectral(settings, spectral), executor=executor)
