"""Settings of the MLLM worker."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.detection.mllm.backends.openai import OpenAISettings


class MllmSettings(BaseModel):
    """The section [mllm]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["unconfigured", "openai"] = Field(
        default="unconfigured", description="unconfigured: escalate with the evidence; openai: any compatible server"
    )
    openai: OpenAISettings | None = Field(default=None, description="needed when backend is openai")
    concurrency: int = Field(default=8, ge=1, le=512, description="requests in flight")
    priority_weight: int = Field(default=8, ge=1, le=1000, description="turns of the priority lane for one normal")
    normal_max_age_s: float = Field(default=60.0, gt=0, description="then the normal lane is served first")

    @model_validator(mode="after")
    def _openai_is_described(self) -> MllmSettings:
        if self.backend == "openai" and self.openai is None:
            raise ValueError("backend is openai: give openai.base_url and openai.model")
        return self
