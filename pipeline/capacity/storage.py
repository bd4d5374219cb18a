"""What a rate of references writes: brokers' disks and network, content store, origins."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.capacity.profile import Profile, Visits
from schemas.topics import TOPICS, Topic

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Flow:
    """Records of one kind. `topics` are alike in retention; `readers` are groups that read each record."""

    name: str
    topics: tuple[Topic, ...]
    rate_per_s: float
    record_bytes: float
    readers: int

    @property
    def retention_s(self) -> float:
        """The longest of its topics, as `mediasieve topics apply` makes them."""
        return max(spec.retention_ms for spec in TOPICS if spec.topic in self.topics) / 1000.0


@dataclass(frozen=True, slots=True)
class Storage:
    """In bytes, and bytes a second. `disk` is of all replicas together at the end of the retention."""

    flows: tuple[Flow, ...]
    disk: float
    produced_per_s: float
    replicated_per_s: float
    consumed_per_s: float
    fetched_per_s: float
    stored_per_day: float
    broker_cores: float


def storage(rate_per_s: float, visits: Visits, profile: Profile, *, replication: int, readers: int) -> Storage:
    """The flows of a rate.

    Args:
        rate_per_s: references.
        visits: shares that reach the later tiers.
        profile: measured sizes.
        replication: copies of each record.
        readers: groups that read decisions: the audit worker, the gateway, your SIEM.
    """
    sizes = profile.bytes
    flows = (
        Flow("references", (Topic.INGEST,), rate_per_s, sizes.reference, 1),
        Flow("to tier 2", (Topic.SUSPECT, Topic.SUSPECT_PRIORITY), rate_per_s * visits.spectral, sizes.suspect, 1),
        Flow("to tier 3", (Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY), rate_per_s * visits.mllm, sizes.anomalous, 1),
        Flow("decisions", (Topic.PASS, Topic.ESCALATE, Topic.BLOCK), rate_per_s, sizes.decision, readers),
    )
    written = {flow.name: flow.rate_per_s * flow.record_bytes for flow in flows}
    produced = sum(written.values())
    return Storage(
        flows=flows,
        disk=replication * sum(written[flow.name] * flow.retention_s for flow in flows),
        produced_per_s=produced,
        replicated_per_s=(replication - 1) * produced,
        consumed_per_s=sum(written[flow.name] * flow.readers for flow in flows),
        fetched_per_s=rate_per_s * sizes.media,
        stored_per_day=rate_per_s * visits.spectral * sizes.stored * DAY_S,
        broker_cores=rate_per_s * profile.broker_cpu_s,
    )
