"""What a fleet was measured to need for one item, with where the numbers come from."""

from __future__ import annotations

import math
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.capacity.distribution import Distribution
from schemas.types import StageName

DEFAULT = "default_profile.json"

_Bytes = Annotated[float, Field(ge=0, description="on a broker's disk, of one record with its share of batch overhead")]


class ProfileError(Exception):
    """A profile that cannot be used; the text names file and field."""


class Source(StrEnum):
    """Where a service time comes from; every figure made of it says so."""

    MEASURED = "measured"
    GIVEN = "given"
    PUBLIC = "public"


class StageProfile(BaseModel):
    """One stage. An item holds a slot for `worked`, of which `cpu_s` on average keep a core busy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: Source
    note: str = Field(default="", description="of a source that is not a measurement: which, and when it was read")
    worked: Distribution = Field(description="from the start of the work to its result")
    cpu_s: float | None = Field(default=None, ge=0, description="processor seconds of the worker's processes by item")
    idle_cores: float = Field(default=0.0, ge=0, description="cores that a replica without work keeps busy")
    slots: int = Field(ge=1, description="items that a replica works on at once")
    cores: float = Field(gt=0, description="of a replica")
    gpus: float = Field(default=0.0, ge=0, description="of a replica, its share of a model server's included")
    transport_s: float = Field(default=0.0, ge=0, description="from a record's timestamp to a free slot, when idle")
    commit_interval_s: float = Field(default=0.05, ge=0, description="most time that a finished result waits")
    commit_s: float = Field(default=0.0, ge=0, description="one commit")

    @property
    def rate_per_s(self) -> float:
        """Most items a second of one replica: what its slots allow, and what its cores allow."""
        by_slots = self.slots / self.worked.mean_s if self.worked.mean_s > 0 else float("inf")
        return min(by_slots, max(0.0, self.cores - self.idle_cores) / self.cpu_s) if self.cpu_s else by_slots

    @property
    def servers(self) -> float:
        """Slots that are busy at that rate: the k of the queue M/G/k."""
        return min(float(self.slots), max(1.0, self.rate_per_s * self.worked.mean_s))

    def lag_threshold(self, drain_s: float) -> int:
        """KEDA's lagThreshold, a lag of one replica: what it has in work when busy, and `drain_s` of its work."""
        return max(1, math.ceil(self.rate_per_s * (self.worked.mean_s + drain_s) - 1e-9))


class Visits(BaseModel):
    """Items at a stage or records on a topic, for one reference that a producer sends."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    spectral: float = Field(ge=0, le=1)
    mllm: float = Field(ge=0, le=1)
    retry: float = Field(default=0.0, ge=0, lt=1, description="fetches that find no answer, of all")

    @model_validator(mode="after")
    def _narrows(self) -> Self:
        if self.mllm > self.spectral:
            raise ValueError(
                f"mllm {self.mllm:g} is above spectral {self.spectral:g}: what reaches tier 3 went by tier 2"
            )
        return self

    def of(self, stage: StageName) -> float:
        """Items at the stage for each reference; a fetch is tried four times at most."""
        match stage:
            case StageName.CLASSIFIER:
                return 1.0 + self.retry + self.retry**2 + self.retry**3
            case StageName.SPECTRAL:
                return self.spectral
            case StageName.MLLM:
                return self.mllm


class Bytes(BaseModel):
    """Mean sizes; media are what producers' origins and the content store move."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    reference: _Bytes
    suspect: _Bytes
    anomalous: _Bytes
    decision: _Bytes
    media: float = Field(ge=0, description="one image")
    stored: float = Field(ge=0, description="in the content store, for each item that reaches tier 2, in all")


class Provenance(BaseModel):
    """Enough to repeat the measurement and to doubt it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str
    machine: str
    measured_at: str
    rate_per_s: float
    seconds: float
    references: int
    remark: str = ""


class Profile(BaseModel):
    """What `mediasieve capacity measure` writes and all other capacity commands read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provenance: Provenance
    visits: Visits
    stages: dict[StageName, StageProfile]
    bytes: Bytes
    broker_cpu_s: float = Field(ge=0, description="processor seconds of the brokers, for each reference")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [stage.value for stage in StageName if stage not in self.stages]
        if missing:
            raise ValueError(f"stages: {', '.join(missing)} missing")
        return self

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read a profile; None: the one in the package.

        Raises:
            ProfileError: the file cannot be read, or a field is wrong.
        """
        try:
            packaged = resources.files("pipeline.capacity").joinpath(DEFAULT)
            return cls.model_validate_json((path or packaged).read_bytes())
        except OSError as error:
            raise ProfileError(
                f"{path}: {error.strerror}; make one with `mediasieve capacity measure -o FILE`"
            ) from error
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
            raise ProfileError(f"{path or DEFAULT}: {faults}") from error

    def replaced(self, stage: StageName, **changes: object) -> Self:
        """The profile with fields of one stage replaced and validated again."""
        changed = StageProfile.model_validate(self.stages[stage].model_dump() | changes)
        return self.model_copy(update={"stages": {**self.stages, stage: changed}})
