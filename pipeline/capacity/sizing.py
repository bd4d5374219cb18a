"""Replicas, partitions and GPUs of each stage for a rate and a time to decision.

A replica is k servers that each take `worked`: its slots, or fewer where its cores are full before (M/G/k with the
approximation of `pipeline.capacity.queueing`). Kafka gives each partition to one member, so replicas are so many queues
and not one, and where partitions do not divide evenly the member with most of them counts: it waits longest. Replicas
grow until no such member is busier than 1 - headroom, then, where most is waited, until the time to decision holds.
Quantiles of the parts are added, which estimates the sum's from above as long as the parts are not strongly dependent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipeline.capacity.profile import Profile, StageProfile, Visits
from pipeline.capacity.queueing import Wait, wait
from schemas.types import StageName

PARTITION_STEP = 12
"""Partition counts are multiples of it: 2, 3, 4, 6 and 12 members share them evenly."""

_FAST = (StageName.CLASSIFIER, StageName.SPECTRAL)
_SHORT_WAIT_S = 0.001
_MOST_REPLICAS = 100_000


class Request(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rate_per_s: Annotated[float, Field(gt=0)]
    visits: Visits
    sla_s: Annotated[float, Field(gt=0, description="time to decision of what tier 1 or 2 decides")]
    sla_mllm_s: Annotated[
        float | None, Field(gt=0, description="the same for what tier 3 decides; None: as it comes")
    ] = None
    within: Annotated[float, Field(ge=0.5, lt=1, description="share of the media for which it holds")] = 0.95
    headroom: Annotated[float, Field(ge=0, lt=1, description="of a stage's replicas that stays unused")] = 0.3
    burst: Annotated[float, Field(ge=1, description="highest rate that partitions shall allow, by the rate")] = 3.0
    drain_s: Annotated[
        float, Field(gt=0, description="backlog of a replica, in seconds of its work, that adds one")
    ] = 30.0


@dataclass(frozen=True, slots=True)
class StageSize:
    """Of one stage. `gpus` None: not known, because no service time of a real model is given."""

    stage: StageName
    source: str
    rate_per_s: float
    replica_rate_per_s: float
    replicas: int
    utilisation: float  # of the member with most partitions, as is `wait`
    wait: Wait
    worked_q_s: float
    hop_s: float
    within: float
    burst_replicas: int
    partitions: int
    cores: float
    gpus: float | None
    lag_threshold: int

    @property
    def latency_q_s(self) -> float:
        """From the record's timestamp to the visible result, at the quantile asked for."""
        return self.hop_s + self.wait.quantile(self.within) + self.worked_q_s


@dataclass(frozen=True, slots=True)
class Sizing:
    """All stages. `unmet` says in words what no number of replicas gives; empty when all holds."""

    stages: dict[StageName, StageSize]
    fast_q_s: float
    slow_q_s: float
    unmet: tuple[str, ...]


def size(request: Request, profile: Profile) -> Sizing:
    """The smallest fleet that does what is asked."""
    replicas = {s: _stable(request, profile.stages[s], s) for s in StageName}
    unmet = [_grow(request, profile, replicas, _FAST, request.sla_s)]
    if request.sla_mllm_s is not None:
        unmet.append(_grow(request, profile, replicas, tuple(StageName), request.sla_mllm_s))
    stages = {s: _sized(request, profile.stages[s], s, replicas[s]) for s in StageName}
    fast = sum(stages[s].latency_q_s for s in _FAST)
    slow = sum(stage.latency_q_s for stage in stages.values())
    return Sizing(stages, fast, slow, tuple(text for text in unmet if text))


def _stable(request: Request, profile: StageProfile, stage: StageName) -> int:
    rate = request.rate_per_s * request.visits.of(stage)
    least = max(1, math.ceil(rate / (profile.rate_per_s * (1.0 - request.headroom)) - 1e-9))
    return _with_headroom(request, profile, stage, least)


def _with_headroom(request: Request, profile: StageProfile, stage: StageName, least: int) -> int:
    """The first number from `least` on at which the member with most partitions has its headroom too."""
    rate, replicas = request.rate_per_s * request.visits.of(stage), least
    while rate * _largest_share(replicas, request.burst) > profile.rate_per_s * (1.0 - request.headroom) + 1e-9:
        replicas += 1
    return replicas


def _burst_replicas(replicas: int, burst: float) -> int:
    return max(replicas, math.ceil(replicas * burst - 1e-9))


def _partitions(replicas: int, burst: float) -> int:
    return PARTITION_STEP * math.ceil(_burst_replicas(replicas, burst) / PARTITION_STEP)


def _largest_share(replicas: int, burst: float) -> float:
    """Of a stage's items, at the member with most partitions; keys are spread evenly over these."""
    partitions = _partitions(replicas, burst)
    return math.ceil(partitions / replicas) / partitions


def _grow(
    request: Request, profile: Profile, replicas: dict[StageName, int], path: tuple[StageName, ...], sla_s: float
) -> str:
    """Add where most is waited until the path holds; otherwise the reason."""
    while True:
        sizes = [_sized(request, profile.stages[s], s, replicas[s]) for s in path]
        total = sum(s.latency_q_s for s in sizes)
        if total <= sla_s:
            return ""
        worst = max(sizes, key=lambda s: s.wait.quantile(request.within))
        if worst.wait.quantile(request.within) <= _SHORT_WAIT_S or worst.replicas >= _MOST_REPLICAS:
            parts = ", ".join(f"{s.stage} {s.worked_q_s:.3g} s of work and {s.hop_s:.3g} s of transport" for s in sizes)
            return f"{sla_s:g} s cannot be met by more replicas: without any wait it is {total:.3g} s ({parts})"
        more = replicas[worst.stage] + 1
        replicas[worst.stage] = _with_headroom(request, profile.stages[worst.stage], worst.stage, more)


def _sized(request: Request, profile: StageProfile, stage: StageName, replicas: int) -> StageSize:
    rate = request.rate_per_s * request.visits.of(stage)
    busiest = rate * _largest_share(replicas, request.burst)
    waits = wait(busiest, profile.worked.mean_s, profile.worked.scv, math.floor(profile.servers))
    known = stage is not StageName.MLLM or profile.gpus > 0
    return StageSize(
        stage=stage,
        source=f"{profile.source}{f' ({profile.note})' if profile.note else ''}",
        rate_per_s=rate,
        replica_rate_per_s=profile.rate_per_s,
        replicas=replicas,
        utilisation=busiest / profile.rate_per_s,
        wait=waits,
        worked_q_s=profile.worked.quantile(request.within),
        hop_s=profile.transport_s + profile.commit_interval_s + profile.commit_s,
        within=request.within,
        burst_replicas=_burst_replicas(replicas, request.burst),
        partitions=_partitions(replicas, request.burst),
        cores=replicas * profile.cores,
        gpus=replicas * profile.gpus if known else None,
        lag_threshold=profile.lag_threshold(request.drain_s),
    )
