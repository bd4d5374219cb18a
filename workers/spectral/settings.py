"""Settings of the spectral worker."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field

from pipeline.media.decode import DecodeLimits


class SpectralSettings(BaseModel):
    """The section [spectral]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processes: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, le=256, description="worker processes, one a core"
    )
    item_timeout_s: float = Field(default=30.0, gt=0, description="one ticket; then its process is killed")
    memory_bytes: int = Field(default=2 * 2**30, ge=2**28, description="memory one process may add for its items")
    decode: DecodeLimits = DecodeLimits()
    top_features: int = Field(default=8, ge=1, le=32, description="features named in the finding")
    priority_weight: int = Field(default=8, ge=1, le=1000, description="turns of the priority lane for one normal")
    normal_max_age_s: float = Field(default=30.0, gt=0, description="then the normal lane is served first")
