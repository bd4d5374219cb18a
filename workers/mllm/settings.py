"""Settings of the MLLM worker."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.detection.mllm.backends.openai import OpenAISettings
from pipeline.detection.mllm.backends.transformers import TransformersSettings
from pipeline.detection.mllm.dialogue import DialogueSettings
from workers.mllm.limits import LimitSettings

Passes = Annotated[
    Literal[1, 2],
    BeforeValidator(lambda value: {"1": 1, "2": 2}.get(value, value) if isinstance(value, str) else value),
]
"""Also as text, which is all that an environment variable can hold."""


class MllmSettings(BaseModel):
    """The section [mllm]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["unconfigured", "openai", "transformers"] = Field(
        default="unconfigured",
        description="unconfigured: escalate with the evidence; openai: any compatible server; "
        "transformers: in this process, needs the extra torch",
    )
    openai: OpenAISettings | None = Field(default=None, description="needed when backend is openai")
    transformers: TransformersSettings | None = Field(default=None, description="needed when backend is transformers")
    passes: Passes = Field(default=2, description="2: a free examination, then the report; 1: the report alone")
    reason_max_tokens: int = Field(default=768, ge=64, le=32_768, description="length of the free examination")
    report_max_tokens: int = Field(default=1024, ge=256, le=32_768, description="length of the report")
    crops: int = Field(default=0, ge=0, le=4, description="details of 256 px at native resolution beside both pictures")
    concurrency: int = Field(default=8, ge=1, le=512, description="requests in flight")
    prepare_ahead: int = Field(
        default=2, ge=0, le=64, description="items beyond concurrency that are made ready, so that no place stays empty"
    )
    max_wait_s: float = Field(
        default=300.0,
        gt=0,
        description="age of an item in its topic past which it escalates instead of waiting for an "
        "open circuit or a spent budget",
    )
    max_age_s: float | None = Field(
        default=None,
        gt=0,
        description="age of an item in its topic past which it escalates as mllm_overloaded without being asked about, "
        "for a fleet whose people are quicker than its backlog; none: a backlog waits its turn",
    )
    limits: LimitSettings = LimitSettings()
    priority_weight: int = Field(default=8, ge=1, le=1000, description="turns of the priority lane for one normal")
    normal_max_age_s: float = Field(default=60.0, gt=0, description="then the normal lane is served first")

    @model_validator(mode="after")
    def _the_backend_is_described(self) -> MllmSettings:
        if self.backend == "openai" and self.openai is None:
            raise ValueError("backend is openai: give openai.base_url and openai.model")
        if self.backend == "transformers" and self.transformers is None:
            raise ValueError("backend is transformers: give transformers.path, a directory with the model's files")
        return self

    @property
    def dialogue(self) -> DialogueSettings:
        """How a model is asked."""
        return DialogueSettings(
            passes=self.passes,
            reason_max_tokens=self.reason_max_tokens,
            report_max_tokens=self.report_max_tokens,
            crops=self.crops,
        )
