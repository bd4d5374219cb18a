"""The stages by name."""

from __future__ import annotations

from pipeline.app import WorkerSpec
from schemas.types import StageName
from workers.settings import Settings


def build_worker(name: StageName, settings: Settings) -> WorkerSpec:
    """The stage of that name; imports only what it needs, so that a worker starts light."""
    match name:
        case StageName.CLASSIFIER:
            from workers.classifier.worker import build as build_classifier  # noqa: PLC0415 - see above

            return build_classifier(settings, settings.classifier)
        case StageName.SPECTRAL:
            from workers.spectral.worker import build as build_spectral  # noqa: PLC0415 - see above

            return build_spectral(settings, settings.spectral, settings.references)
        case StageName.MLLM:
            from workers.mllm.worker import build as build_mllm  # noqa: PLC0415 - see above

            return build_mllm(settings, settings.mllm)
