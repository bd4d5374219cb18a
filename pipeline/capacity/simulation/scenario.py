"""What is simulated. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.capacity.distribution import Distribution
from pipeline.capacity.profile import Profile, Visits
from schemas.types import StageName


@dataclass(frozen=True, slots=True)
class LaneModel:
    """Topics of one lane. `delay_s`: of a retry topic. `max_age_s`: then it is served before its turn."""

    name: str
    weight: int = 1
    slots: int = 1_000_000
    delay_s: float = 0.0
    max_age_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class StageModel:
    """One stage. An item holds a slot while it waits for others and while it keeps a core busy.

    `worked` is its time without a queue for cores; of that `cpu_share` is work of a core.
    """

    name: str
    worked: Distribution
    cpu_share: float
    slots: int
    cores: float
    partitions: int
    replicas: int
    lanes: tuple[LaneModel, ...] = (LaneModel("normal"),)
    batch_items: int = 1
    batch_wait_s: float = 0.0
    transport_s: float = 0.0
    commit_interval_s: float = 0.0
    commit_s: float = 0.0

    @property
    def rate_per_s(self) -> float:
        """Most items of a replica, batches aside."""
        by_slots = self.slots / self.worked.mean_s
        cpu_s = self.cpu_share * self.worked.mean_s
        return min(by_slots, self.cores / cpu_s) if cpu_s else by_slots


@dataclass(frozen=True, slots=True)
class ScalerSettings:
    """KEDA's apache-kafka scaler and the HPA behind it, as deploy/k8s/components/keda sets them; the tests compare.

    The lag of the group is a total that the HPA divides by the threshold: the threshold is a lag of one replica.
    `idle_consumers` is KEDA's `allowIdleConsumers`; without it the lag is cut at partitions x threshold, and the HPA's
    tolerance then ends all growth 10 % before the last partition has a member of its own. `poll_s`: age of a lag that
    is used again, `pollingInterval` under KEDA's `useCachedMetrics`; 0, without it: each sync of the HPA asks.

    Up by the lowest wish of the up window, at most `up_pods` or `up_share` of the replicas in a period; down by the
    highest of the down window, so many pods a period.
    """

    lag_threshold: int
    idle_consumers: bool = True
    min_replicas: int = 1
    max_replicas: int = 100
    poll_s: float = 0.0
    sync_s: float = 15.0
    tolerance: float = 0.1
    up_pods: int = 4
    up_share: float = 0.0
    up_period_s: float = 60.0
    up_window_s: float = 30.0
    down_window_s: float = 600.0
    down_pods: int = 1
    down_period_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Membership:
    """What changes of a group's members cost.

    The session timeout is `group.consumer.session.timeout.ms` of deploy/k8s/components/strimzi.
    `replace_s`: from a lost node to a pod elsewhere, Kubernetes' toleration of an unreachable node. `eager`: all
    partitions stop at every change, not only those that move.
    """

    pod_start_s: float = 40.0
    rebalance_s: float = 5.0
    drain_s: float = 30.0
    session_timeout_s: float = 10.0
    replace_s: float = 300.0
    eager: bool = False


@dataclass(frozen=True, slots=True)
class Burst:
    """The arrival rate times `factor` between two times."""

    from_s: float
    to_s: float
    factor: float


@dataclass(frozen=True, slots=True)
class Slowdown:
    """Work of a stage that begins between two times takes `factor` times as long, its waiting part alone."""

    stage: str
    from_s: float
    to_s: float
    factor: float


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """So many replicas of a stage are gone at once, without a word."""

    stage: str
    at_s: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run. `reach[i]` is the share of references that reach stage i, the first one's 1.

    `host_cores`: all replicas of all stages share one machine of so many cores; None: each has its own.
    """

    stages: tuple[StageModel, ...]
    reach: tuple[float, ...]
    rate_per_s: float
    seconds: float
    seed: int
    priority_share: float = 0.0
    retry_share: float = 0.0
    host_cores: float | None = None
    scalers: dict[str, ScalerSettings] = field(default_factory=dict)
    membership: Membership = Membership()
    bursts: tuple[Burst, ...] = ()
    slowdowns: tuple[Slowdown, ...] = ()
    losses: tuple[NodeLoss, ...] = ()
    sample_s: float = 1.0
    warm_up_s: float = 0.0

    def rate_at(self, now_s: float) -> float:
        """Arrivals a second at a time."""
        rate = self.rate_per_s
        for burst in self.bursts:
            if burst.from_s <= now_s < burst.to_s:
                rate *= burst.factor
        return rate

    def slowed(self, stage: str, now_s: float) -> float:
        """By how much work that begins now takes longer."""
        factor = 1.0
        for slow in self.slowdowns:
            if slow.stage == stage and slow.from_s <= now_s < slow.to_s:
                factor *= slow.factor
        return factor


RETRY_LANES = tuple(LaneModel(f"retry {d:g} s", slots=8, delay_s=d) for d in (10.0, 60.0, 600.0))
_TWO_LANES = {
    StageName.SPECTRAL: (LaneModel("priority", weight=8), LaneModel("normal", max_age_s=30.0)),
    StageName.MLLM: (LaneModel("priority", weight=8), LaneModel("normal", max_age_s=60.0)),
}


def stages_of(
    profile: Profile, replicas: dict[StageName, int], partitions: dict[StageName, int]
) -> tuple[StageModel, ...]:
    """The three stages as they were measured; the classifier's time is given without its queue for cores."""
    models = []
    for name in StageName:
        stage = profile.stages[name]
        cpu_s = stage.cpu_s or 0.0
        worked = stage.worked
        lanes = _TWO_LANES.get(name, (LaneModel("normal", slots=stage.slots), *RETRY_LANES))
        models.append(
            StageModel(
                name=name.value,
                worked=worked,
                cpu_share=min(1.0, cpu_s / worked.mean_s) if worked.mean_s else 0.0,
                slots=stage.slots + (24 if name is StageName.CLASSIFIER else 0),
                cores=stage.cores,
                partitions=partitions[name],
                replicas=replicas[name],
                lanes=lanes,
                transport_s=stage.transport_s,
                commit_interval_s=stage.commit_interval_s,
                commit_s=stage.commit_s,
            )
        )
    return tuple(models)


def reach_of(visits: Visits) -> tuple[float, ...]:
    """Shares that reach each stage."""
    return 1.0, visits.spectral, visits.mllm
