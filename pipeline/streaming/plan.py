"""What the runner must be told: the stage's plan and the bounds of the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.streaming.batch import BatchLimits, Lane
from pipeline.streaming.failure import DeadLetterLimits
from pipeline.streaming.stage import Fallback, Item


class RunnerSettings(BaseModel):
    """Bounds of the loop. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit_interval_s: float = Field(default=0.05, ge=0, le=10, description="most time a finished result waits")
    commit_max_items: int = Field(default=256, ge=1, le=10_000, description="finished results that commit at once")
    commit_timeout_s: float = Field(default=10.0, gt=0, le=60, description="one commit, retries included")
    commit_give_up_s: float = Field(default=60.0, gt=0, description="aborts in a row for this long end the process")
    revoke_timeout_s: float = Field(default=5.0, ge=0, le=60, description="time to finish what is in flight on revoke")
    drain_timeout_s: float = Field(default=30.0, ge=0, le=3600, description="time to finish on SIGTERM")
    max_held_bytes: int = Field(
        default=64 * 2**20, ge=2**20, description="record bytes in memory, shared by the lanes, at which reading pauses"
    )
    dependency_max_age_s: float = Field(
        default=300.0,
        ge=0,
        description="then the item escalates: dependency_unavailable; never while its evidence cannot be stored",
    )
    backoff_first_s: float = Field(default=0.2, gt=0, description="first wait for a missing dependency; it doubles")
    backoff_max_s: float = Field(default=15.0, gt=0, description="longest wait for a missing dependency")
    careful_window: int = Field(
        default=16, ge=1, le=10_000, description="records of a partition that a new reader announces before it begins"
    )
    batch: BatchLimits = BatchLimits()
    dead_letters: DeadLetterLimits = DeadLetterLimits()


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a stage the runner must know."""

    name: str
    lanes: tuple[Lane, ...]
    cost: Callable[[Item[Any]], int]
    fallback: Fallback[Any]
    tenant_quota: Callable[[str], int]
    edge: bool = False
    """True for the stage that reads what producers send."""
