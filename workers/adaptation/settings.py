"""Settings of the learning loop: the adaptation worker, `mediasieve references`, and the workers that follow."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.media import DEFAULT_TENANT

TeachingTenant = Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._:@-]{0,127})$")]
"""A tenant, or `*`."""


class Promotion(StrEnum):
    """What becomes of a candidate that the gate lets through."""

    MANUAL = "manual"
    SHADOW = "shadow"
    ACTIVE = "active"


class ReferenceSettings(BaseModel):
    """The section [references]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_keys: Path | None = Field(
        default=None,
        description="JSON file of the public keys to trust; none: the spectral stage follows nobody and decides by the "
        "bundle's reference alone",
    )
    private_key: Path | None = Field(
        default=None, description="file of the Ed25519 key that signs; `mediasieve references keygen` makes it"
    )
    key_name: str = Field(
        default="mediasieve/references",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$",
        description="name of that key in each signature",
    )
    promotion: Promotion = Field(
        default=Promotion.MANUAL,
        description="what the adaptation worker does with a candidate that the gate lets through: nothing, let it "
        "watch beside the reference that decides (shadow), or let it decide (active)",
    )
    tenants: tuple[TeachingTenant, ...] = Field(
        default=(DEFAULT_TENANT,),
        min_length=1,
        description="tenants whose reviewers teach. A reference decides for all tenants of the fleet, so name those "
        "that may change the others' decisions; `*`: all",
    )
    min_samples: int = Field(
        default=20, ge=10, le=200, description="confirmed images of a family before a candidate is built"
    )
    start_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="longest wait of a spectral worker's start for the topic `references` and the store",
    )
    retry_s: float = Field(
        default=5.0,
        gt=0,
        description="wait before a reference, or an archived decision, that was not there is asked for again",
    )
    sample_timeout_s: float = Field(default=60.0, gt=0, description="longest measurement of one reviewed image")
    sample_memory_bytes: int = Field(default=2 * 2**30, ge=2**28, description="memory that it may add")
