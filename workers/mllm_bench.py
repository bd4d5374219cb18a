"""Whether one MLLM worker keeps a server busy: its stage and executor against a stub of fixed latency, without Kafka.

All but the broker is the worker's own: store, pictures, dialogue, limits, HTTP client, evidence, threads. The stub is
a process of its own on the loopback interface that reads each question whole and answers after the latency. The most
that can be had is concurrency / (latency x passes) images a second.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.spectral.analyser import SpectralAnalyser
from pipeline.detection.spectral.panel import render_panel
from pipeline.evaluation.power_law import coloured, power_law
from pipeline.media.content_store import ContentStore, open_store
from pipeline.media.decode import decode_image
from pipeline.media.encode import encode
from pipeline.media.store_settings import StoreSettings
from pipeline.streaming.executors.base import Completed
from pipeline.streaming.executors.threads import Threads
from pipeline.streaming.stage import Emit, Item
from schemas.decision import Decision, ReasonCode
from schemas.media import Admission, AnomalousMedia, EvidenceRef, SpectralFinding, StageScore, decision_uid
from schemas.types import StageName
from workers.mllm.memory import steady_allocator
from workers.mllm.settings import MllmSettings
from workers.mllm.stage import MllmStage
from workers.mllm.worker import make_verifier
from workers.mllm_bench_stub import MODEL, StubFailed, running_stub

_PICTURES = 8
_TENANT = "bench"
_SCORE = 0.99
"""Of both stages that see pixels: with the stub's report it blocks."""
_HANG_S = 120.0


class BenchFailed(StubFailed):
    """The run measures nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is run. `side_px`: of the test images, whose panels have the fleet's size."""

    images: int
    concurrency: int
    latency_ms: int
    passes: int
    side_px: int


@dataclass(frozen=True, slots=True)
class Slice:
    """One second of the run: images decided in it, and the resident memory of the worker's process at its end."""

    second: int
    images: int
    rss_mib: float


@dataclass(frozen=True, slots=True)
class Measured:
    """`steady_per_s` leaves out the first and the last round trip, when the places fill and empty.

    `ratio`: of it to `ideal_per_s`. `cpu_ms`: processor time of the worker's process for one image. `rss_growth_mib`:
    mean of the last quarter of the slices over that of the second.
    """

    images: int
    wall_s: float
    per_s: float
    steady_per_s: float
    ideal_per_s: float
    ratio: float
    cpu_ms: float
    cores: int
    rss_growth_mib: float
    peak_rss_mib: float
    slices: tuple[Slice, ...]

    def as_row(self) -> dict[str, object]:
        """Plain values, floats to four digits."""
        row = asdict(self)
        return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}


def run(load: Load) -> Measured:
    """Measure once.

    Raises:
        BenchFailed: an item was not decided by the stub's report, or the stub did not start.
        BundleError: the shipped bundle cannot be used.
    """
    bundle = Bundle.load()
    with tempfile.TemporaryDirectory(prefix="mllm-bench-") as directory, running_stub(load.latency_ms / 1e3) as port:
        settings = MllmSettings.model_validate(
            {
                "backend": "openai",
                "openai": {"base_url": f"http://127.0.0.1:{port}/v1", "model": MODEL},
                "concurrency": load.concurrency,
                "prepare_ahead": max(2, load.concurrency // 8),
                "passes": load.passes,
            }
        )
        store = StoreSettings(url=Path(directory).as_uri())
        records = _records(bundle, open_store(store), load.side_px)
        steady_allocator()
        stage = MllmStage(bundle, make_verifier(settings, bundle), store, max_wait_s=settings.max_wait_s)
        executor: Threads[AnomalousMedia] = Threads(stage, settings.concurrency + settings.prepare_ahead)
        executor.open()
        try:
            return _measure(executor, records, load)
        finally:
            executor.close(_HANG_S)


def _measure(executor: Threads[AnomalousMedia], records: list[AnomalousMedia], load: Load) -> Measured:
    started_s, cpu_s = time.monotonic(), time.process_time()
    done_at: list[float] = []
    slices: list[Slice] = []
    begun = 0
    while len(done_at) < load.images:
        while begun < load.images and executor.free_slots():
            executor.submit(begun, [_item(begun, records[begun % len(records)])])
            begun += 1
        for completed in executor.completed(0.05):
            _check(completed)
            done_at.append(time.monotonic() - started_s)
        now_s = time.monotonic() - started_s
        if now_s >= len(slices) + 1:
            slices.append(Slice(len(slices) + 1, sum(at > len(slices) for at in done_at), _rss_mib()))
        if now_s - (done_at[-1] if done_at else 0.0) > _HANG_S:
            raise BenchFailed(f"no image was decided for {_HANG_S:g} s")
    wall_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
    trip_s = load.latency_ms / 1e3 * load.passes
    steady = [at for at in done_at if 2.0 * trip_s <= at <= wall_s - trip_s]
    steady_per_s = (len(steady) - 1) / (steady[-1] - steady[0]) if len(steady) > 1 else float("nan")
    ideal = load.concurrency / trip_s
    return Measured(
        images=load.images,
        wall_s=wall_s,
        per_s=load.images / wall_s,
        steady_per_s=steady_per_s,
        ideal_per_s=ideal,
        ratio=steady_per_s / ideal,
        cpu_ms=1e3 * cpu_s / load.images,
        cores=len(os.sched_getaffinity(0)),
        rss_growth_mib=_growth(slices),
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
        slices=tuple(slices),
    )


def _check(completed: Completed) -> None:
    """Only an item that was decided by the stub's first report counts."""
    for outcome in completed.outcomes or ():
        decision = outcome.outputs[0].record if isinstance(outcome, Emit) else None
        if not isinstance(decision, Decision) or decision.reasons[0].code is not ReasonCode.SYNTHETIC_CONFIRMED:
            raise BenchFailed(f"an item was not decided by the report: {outcome}; use a lower --concurrency")


def _growth(slices: list[Slice]) -> float:
    quarter = len(slices) // 4
    if not quarter:
        return float("nan")
    rss = np.array([one.rss_mib for one in slices])
    return float(rss[-quarter:].mean() - rss[quarter : 2 * quarter].mean())


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def _item(number: int, record: AnomalousMedia) -> Item[AnomalousMedia]:
    return Item(record, f"bench-{number}", _TENANT, "bench", f"bench-0-{number}", "0" * 31 + "1", 1, time.time())


def _records(bundle: Bundle, store: ContentStore, side_px: int) -> list[AnomalousMedia]:
    """Different images, with the panels and features that the spectral stage would give them."""
    entry = bundle.manifest.spectral
    if entry is None:
        raise BundleError(f"{bundle.directory}: has no spectral reference")
    analyser = SpectralAnalyser(bundle.path(entry.file))
    return [_record(bundle, store, analyser, side_px, seed) for seed in range(_PICTURES)]


def _record(bundle: Bundle, store: ContentStore, analyser: SpectralAnalyser, side_px: int, seed: int) -> AnomalousMedia:
    data = encode(np.roll(coloured(power_law(side_px, side_px)), seed * 16, axis=1), "jpeg", 90)
    image = decode_image(data)
    analysis = analyser.analyse(image)
    store.put(_TENANT, image.facts.sha256, data)
    uri, sha256 = store.put_evidence(_TENANT, render_panel(image, analysis), ".png")
    uid = decision_uid(_TENANT, f"bench-{seed}", image.facts.sha256, bundle.policy.version, bundle.version)
    return AnomalousMedia(
        admission=Admission(
            tenant=_TENANT,
            media_id=f"bench-{seed}",
            decision_uid=uid,
            uri="file:///bench",
            admitted_at=datetime.now(UTC),
            policy_version=bundle.policy.version,
            bundle_version=bundle.version,
        ),
        facts=image.facts,
        spectral=SpectralFinding(
            score=_SCORE,
            p_value=0.01,
            stratum=analysis.stratum,
            top_features=analysis.top_features(8),
            panel=EvidenceRef(kind="spectral_panel", uri=uri, sha256=sha256),
        ),
        scores=tuple(
            StageScore(stage=stage, score=_SCORE, bundle_version=bundle.version, model="bench")
            for stage in (StageName.CLASSIFIER, StageName.SPECTRAL)
        ),
    )
