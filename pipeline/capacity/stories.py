"""Three incidents that a fleet must live through, on a fleet sized for its everyday load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.capacity.profile import Profile
from pipeline.capacity.simulation.scenario import (
    Burst,
    NodeLoss,
    ScalerSettings,
    Scenario,
    Slowdown,
    reach_of,
    stages_of,
)
from pipeline.capacity.sizing import Request, size
from schemas.types import StageName

CALM_S = 300.0
INCIDENT_S = 300.0


def burst(scenario: Scenario, factor: float) -> Scenario:
    """The rate times `factor` for five minutes."""
    return replace(scenario, bursts=(Burst(CALM_S, CALM_S + INCIDENT_S, factor),))


def slow_model(scenario: Scenario, factor: float) -> Scenario:
    """The model server takes `factor` times as long for five minutes."""
    slow = Slowdown(StageName.MLLM.value, CALM_S, CALM_S + INCIDENT_S, factor)
    return replace(scenario, slowdowns=(slow,))


def node_loss(scenario: Scenario, factor: float) -> Scenario:
    """A node with one in `factor` of each stage's replicas, at least one of each, is gone."""
    losses = tuple(NodeLoss(s.name, CALM_S, max(1, int(s.replicas / factor))) for s in scenario.stages)
    return replace(scenario, losses=losses)


STORIES: dict[str, tuple[Callable[[Scenario, float], Scenario], float]] = {
    "burst": (burst, 10.0),
    "slow-model": (slow_model, 3.0),
    "node-loss": (node_loss, 2.0),
}
"""By name: what happens, and its factor unless another is given."""


def everyday(
    request: Request, profile: Profile, *, seconds: float, seed: int, priority_share: float, poll_s: float, scaled: bool
) -> Scenario:
    """The sized fleet at its rate, each stage with a ScaledObject unless not `scaled`."""
    sized = size(request, profile)
    replicas = {s: sized.stages[s].replicas for s in StageName}
    partitions = {s: sized.stages[s].partitions for s in StageName}
    scalers = {
        s.value: ScalerSettings(
            sized.stages[s].lag_threshold, min_replicas=replicas[s], max_replicas=partitions[s], poll_s=poll_s
        )
        for s in StageName
    }
    return Scenario(
        stages=stages_of(profile, replicas, partitions),
        reach=reach_of(request.visits),
        rate_per_s=request.rate_per_s,
        seconds=seconds,
        seed=seed,
        priority_share=priority_share,
        retry_share=request.visits.retry,
        scalers=scalers if scaled else {},
        sample_s=2.0,
    )
