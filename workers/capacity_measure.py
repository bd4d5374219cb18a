"""A profile from one run of a real fleet on this machine."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.capacity.observed import Observed, Repetition
from pipeline.capacity.profile import Bytes, Profile, ProfileError, Provenance, Source, StageProfile, Visits
from schemas.topics import Topic
from schemas.types import StageName
from workers.capacity_site import PARTITIONS, Load, Site, SiteSettings, running_site
from workers.settings import Settings

_TO_TIER_2 = (Topic.SUSPECT, Topic.SUSPECT_PRIORITY)
_TO_TIER_3 = (Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY)
_DECISIONS = (Topic.PASS, Topic.ESCALATE, Topic.BLOCK)
_IDLE_LEVEL = 0.02
COMMIT_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class Relative:
    """Rates of runs B and C, as shares of the rate at which run A's times fill tier 3."""

    below: float = 0.6
    above: float = 1.5


def slots_of(settings: SiteSettings) -> dict[StageName, int]:
    """Items that each stage of the site works on at once."""
    fleet = Settings()
    return {
        StageName.CLASSIFIER: fleet.classifier.slots,
        StageName.SPECTRAL: fleet.spectral.processes,
        StageName.MLLM: settings.model_places,
    }


def measure(home: Path, settings: SiteSettings, load: Load, command: str) -> Profile:
    """Run one load and describe what it needed.

    Raises:
        ProfileError: a stage got no item.
        FleetFailed, LoadFailed: as `Site.drive`.
    """
    with running_site(home, settings) as site:
        run = site.drive(load)
        return profile_of(run, _bytes(site, run), slots_of(settings), settings, command)


def repeat(home: Path, settings: SiteSettings, run_a: Load, relative: Relative, seconds: float) -> Repetition:
    """Runs A, B and C on one fleet; C last, because it leaves a backlog.

    Raises:
        LoadFailed: nothing reached tier 3 in run A, or as `Site.drive`.
        FleetFailed: as `Site.drive`.
    """
    from pipeline.capacity.check import capacity_per_s  # noqa: PLC0415 - brings the simulation

    with running_site(home, settings) as site:
        a = site.drive(run_a)
        full = capacity_per_s(a, settings.model_places)
        b = site.drive(Load(relative.below * full, seconds, run_a.warm_up_s, run_a.seed + 1))
        c = site.drive(Load(relative.above * full, seconds, run_a.warm_up_s, run_a.seed + 2), drain=False)
        return Repetition(slots=slots_of(settings), partitions=PARTITIONS, runs=(a, b, c))


def profile_of(
    run: Observed, sizes: Bytes, slots: dict[StageName, int], settings: SiteSettings, command: str
) -> Profile:
    """What a run says of one item at each stage.

    Raises:
        ProfileError: a stage got no item in the window.
    """
    stages = {name: _stage(run, name, slots[name], settings) for name in StageName}
    visits = Visits(**{s.value: run.stages[s].items / run.answered for s in (StageName.SPECTRAL, StageName.MLLM)})
    return Profile(
        provenance=Provenance(
            command=command,
            machine=f"{_processor()}, {run.cores} cores, {platform.system()}, Python {platform.python_version()}",
            measured_at=datetime.now(UTC).date().isoformat(),
            rate_per_s=run.rate_per_s,
            seconds=run.window_s,
            references=run.answered,
            remark=f"other work kept {run.other_cores:.2f} of {run.cores} cores busy meanwhile; all stages, the "
            f"broker and the sender shared the machine; {asdict(settings)}",
        ),
        visits=visits,
        stages=stages,
        bytes=sizes,
        broker_cpu_s=run.broker_cpu_s / run.answered,
    )


def _stage(run: Observed, name: StageName, slots: int, settings: SiteSettings) -> StageProfile:
    seen = run.stages[name]
    if seen.worked is None or seen.waited is None:
        raise ProfileError(f"{name}: no item in {run.window_s:g} s; run longer or raise --generated")
    stub = f"model server: a stub that answers after {settings.model_latency_s:g} s"
    return StageProfile(
        source=Source.MEASURED,
        note=stub if name is StageName.MLLM else "",
        worked=seen.worked,
        cpu_s=max(0.0, seen.cpu_s - seen.idle_cores * run.window_s) / seen.items,
        idle_cores=seen.idle_cores,
        slots=slots,
        cores=float(run.cores),
        transport_s=seen.waited.quantile(_IDLE_LEVEL),
        commit_interval_s=COMMIT_INTERVAL_S,
        commit_s=seen.commit_s,
    )


def _bytes(site: Site, run: Observed) -> Bytes:
    """Sizes on disk by record: all that this site has ever been sent, the warm-up included."""
    shares = {s: run.stages[s].items / run.answered for s in StageName}

    def mean(topics: tuple[Topic, ...], share: float) -> float:
        return sum(site.topic_bytes(t) for t in topics) / max(1.0, site.sent * share)

    return Bytes(
        reference=mean((Topic.INGEST,), 1.0),
        suspect=mean(_TO_TIER_2, shares[StageName.SPECTRAL]),
        anomalous=mean(_TO_TIER_3, shares[StageName.MLLM]),
        decision=mean(_DECISIONS, 1.0),
        media=site.media_bytes,
        stored=site.stored_bytes() / max(1.0, site.sent * shares[StageName.SPECTRAL]),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
