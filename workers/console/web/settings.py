"""Settings of the console's pages."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PageSettings(BaseModel):
    """The section [console.page]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_s: float = Field(default=43_200.0, gt=0, le=604_800, description="longest life of a login, in seconds")
    idle_s: float = Field(default=7_200.0, gt=0, le=604_800, description="a login ends after so long without a request")
    flow_hours: float = Field(default=24.0, gt=0, le=24.0 * 31, description="what the dashboard shows unless asked")
    max_form_bytes: int = Field(default=65_536, ge=8_192, le=2**20, description="largest form that is read")
    misses_days: float = Field(
        default=7.0,
        ge=0,
        le=60,
        description="days of traffic for the dashboard's estimate of what stage 1 misses; 0: none is made",
    )
    misses_every_s: float = Field(
        default=21_600.0,
        ge=60,
        le=604_800,
        description="pause between two estimates, each of which reads the topics of those days in a process of its own",
    )
