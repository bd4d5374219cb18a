"""What steps and spans cost beside the work itself: `python -m tests.support.tracing_cost`.

Reads the ratio of CPU time of the same photograph through the classifier stage, and microseconds of each part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pipeline.detection.bundle import Bundle
from pipeline.media.store_settings import StoreSettings
from pipeline.observability.health import Pulse
from pipeline.observability.metrics import Metrics
from pipeline.observability.otel import OtelTracing
from pipeline.observability.tracing import NoTracing, Tracing
from pipeline.observability.watch import FleetWatch
from pipeline.streaming.clock import SystemClock
from pipeline.streaming.stage import Emit, Item, Outcome
from pipeline.streaming.steps import step, with_steps
from pipeline.streaming.trace import ratio, trace_of
from schemas.envelope import new_trace
from schemas.media import MediaReference
from tests.support.entries import entry, item
from workers.classifier.settings import ClassifierSettings
from workers.classifier.stage import ClassifierStage
from workers.demo_media import make_demo_media


def us(work: Callable[[], object], times: int, rounds: int = 7) -> float:
    """Microseconds of one call: the best of some rounds, for what else runs can only add."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - began) / times * 1e6)
    return best


def classifier_us() -> float:
    """One photograph through the whole stage, one after another."""
    with TemporaryDirectory() as name:
        media = Path(name) / "media"
        make_demo_media(media)
        settings = ClassifierSettings.model_validate(
            {"fetch": {"file_roots": [str(media)]}, "sandbox": {"workers": 1}, "audit_sample": {"share": 0}}
        )
        stage = ClassifierStage(Bundle.load(None), settings, StoreSettings(url=(Path(name) / "store").as_uri()))
        stage.open()
        photo = (media / "photo-coffee-q95.jpg").as_uri()
        given = item("m-1", value=MediaReference(uri=photo, media_id="m-1"))
        try:
            stage.process([given])
            return us(lambda: stage.process([given]), 10)
        finally:
            stage.close()


def steps_us() -> float:
    given = item()
    return us(lambda: with_steps(_four, given), 2000)


def committed_us(tracing: Tracing, sampled: bool, times: int) -> float:
    """The watch's part of one committed record with four steps."""
    clock = SystemClock()
    metrics = Metrics()
    watch = FleetWatch(metrics, Pulse(clock), clock, "classifier", tracing)
    done = entry(7, polled_at_s=clock.monotonic_s())
    header = new_trace("x").format()[:-2] + ("01" if sampled else "00")
    done.trace = trace_of(header.encode(), "seed", "classifier", ratio(0.0))
    done.steps = with_steps(_four, item()).steps
    return us(lambda: watch.committed([done], 0.01), times)


def _four(_: Item[object]) -> Outcome:
    for name in ("fetch", "decode", "infer", "store"):
        with step(name):
            pass
    return Emit(())


def main() -> None:
    """Print the figures."""
    work = classifier_us()
    steps = steps_us()
    off = committed_us(NoTracing(), sampled=True, times=2000)
    otel = OtelTracing(BatchSpanProcessor(InMemorySpanExporter()), "classifier")
    passed_over = committed_us(otel, sampled=False, times=2000)
    sampled = committed_us(otel, sampled=True, times=300)
    otel.close()
    print(f"classifier, one photograph                      {work:9.1f} us")
    print(f"timing four steps (always)                      {steps:9.1f} us  {steps / work:8.4%}")
    print(f"commit's watch without tracing                  {off:9.1f} us  {off / work:8.4%}")
    print(f"commit's watch, tracing on, not sampled         {passed_over:9.1f} us  {passed_over / off:8.2f} x without")
    print(f"commit's watch, tracing on, sampled (6 spans)   {sampled:9.1f} us  {(sampled - off) / work:8.4%} more")


if __name__ == "__main__":
    main()
