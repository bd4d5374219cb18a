"""Settings of the classifier worker."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.detection.classifier.backends.onnx import OnnxSettings
from pipeline.detection.classifier.batching import BatchingSettings
from pipeline.detection.classifier.classifier import BackendSettings
from pipeline.media.decode import DecodeLimits
from pipeline.media.fetch_settings import FetchSettings
from schemas.types import Identifier
from workers.classifier.audit_sample import AuditSampleSettings


class ProducerClass(BaseModel):
    """What a producer may ask for. Empty `tenants`: any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenants: frozenset[Identifier] = Field(default=frozenset(), description="tenants it may name; empty: any")
    high_priority: bool = Field(default=False, description="may it use the priority lane by asking for it")


class SandboxSettings(BaseModel):
    """The processes that decode what strangers sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=2, ge=1, le=64, description="decoder processes")
    memory_bytes: int = Field(default=2 * 2**30, ge=2**28, description="address space of one")
    cpu_s: float = Field(default=10.0, gt=0, description="processor seconds for one image")
    timeout_s: float = Field(default=15.0, gt=0, description="wall seconds for one image; then the process is killed")


class ClassifierSettings(BaseModel):
    """The section [classifier]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots: int = Field(default=32, ge=1, le=1024, description="items fetched, decoded or classified at once")
    retry_slots: int = Field(default=8, ge=1, le=1024, description="the same for the retry topics, apart from `slots`")
    tenant_quota: int = Field(default=24, ge=1, description="items of one tenant in flight")
    tenant_quotas: dict[Identifier, int] = Field(default_factory=dict, description="exceptions from tenant_quota")
    producers: dict[Identifier, ProducerClass] = Field(default_factory=dict, description="classes by `source`")
    other_producers: ProducerClass = Field(default=ProducerClass(), description="class of all others")
    backend: BackendSettings = Field(default=OnnxSettings(), description="the model's runtime")
    batching: BatchingSettings = BatchingSettings()
    fetch: FetchSettings = FetchSettings()
    decode: DecodeLimits = DecodeLimits()
    sandbox: SandboxSettings = SandboxSettings()
    audit_sample: AuditSampleSettings = AuditSampleSettings()

    @field_validator("backend", mode="before")
    @classmethod
    def _onnx_unless_named(cls, value: Any) -> Any:
        """So that one setting of the default back end can be given alone."""
        return {"kind": "onnx"} | value if isinstance(value, dict) else value

    def producer(self, source: str) -> ProducerClass:
        """The class configured for a source."""
        return self.producers.get(source, self.other_producers)

    def quota(self, tenant: str) -> int:
        """Items of the tenant that may be in flight."""
        return self.tenant_quotas.get(tenant, self.tenant_quota)
