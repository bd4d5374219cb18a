"""One settings file for the whole fleet: the common part, then a section a stage."""

from __future__ import annotations

from pipeline.settings import FleetSettings
from workers.audit.settings import AuditSettings
from workers.classifier.settings import ClassifierSettings
from workers.mllm.settings import MllmSettings
from workers.spectral.settings import SpectralSettings


class Settings(FleetSettings):
    """Everything a fleet can be told."""

    classifier: ClassifierSettings = ClassifierSettings()
    spectral: SpectralSettings = SpectralSettings()
    mllm: MllmSettings = MllmSettings()
    audit: AuditSettings = AuditSettings()
