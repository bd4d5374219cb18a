"""One settings file for the whole fleet: the common part, then a section a stage."""

from __future__ import annotations

from pipeline.settings import FleetSettings
from workers.adaptation.settings import ReferenceSettings
from workers.audit.settings import AuditSettings
from workers.classifier.settings import ClassifierSettings
from workers.console.settings import ConsoleSettings
from workers.gateway.settings import GatewaySettings
from workers.mllm.settings import MllmSettings
from workers.spectral.settings import SpectralSettings
from workers.web.settings import AccessSettings, ClientSettings, DatabaseSettings


class Settings(FleetSettings):
    """Everything a fleet can be told."""

    classifier: ClassifierSettings = ClassifierSettings()
    spectral: SpectralSettings = SpectralSettings()
    mllm: MllmSettings = MllmSettings()
    audit: AuditSettings = AuditSettings()
    references: ReferenceSettings = ReferenceSettings()
    access: AccessSettings = AccessSettings()
    client: ClientSettings = ClientSettings()
    database: DatabaseSettings = DatabaseSettings()
    gateway: GatewaySettings = GatewaySettings()
    console: ConsoleSettings = ConsoleSettings()
