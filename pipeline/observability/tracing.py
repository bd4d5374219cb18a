"""What is traced and where spans go; without a setting, nothing is and none are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from pipeline.streaming.trace import FlagLimit, RecordTrace, Samples, ratio

Value = str | int | float


class TraceSettings(BaseModel):
    """Where spans go, and which traces are recorded; for the whole fleet the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exporter: Literal["none", "console", "otlp"] = Field(
        default="none",
        description="none, console (JSON on standard output) or otlp; the last two need the extra `otel`",
    )
    endpoint: str = Field(
        default="http://localhost:4318/v1/traces", description="of an OpenTelemetry collector: OTLP over HTTP"
    )
    ratio: float = Field(
        default=0.01, ge=0.0, le=1.0, description="share of the traces that begin here; producers' flags: flagged_per_s"
    )
    flagged_per_s: float = Field(
        default=10.0,
        ge=0.0,
        le=10_000.0,
        description="traces a second that producers' flags turn on in one classifier or gateway, no more",
    )

    @property
    def samples(self) -> Samples:
        """Of traces that begin in this fleet."""
        return ratio(self.ratio if self.exporter != "none" else 0.0)

    @property
    def flags(self) -> FlagLimit | None:
        """Of one process; None without an exporter: flags are passed on as they came."""
        return FlagLimit(self.flagged_per_s) if self.exporter != "none" else None


class SpanKind(StrEnum):
    """OpenTelemetry's kinds in use."""

    CONSUMER = "consumer"
    PRODUCER = "producer"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Span:
    """Something that is over. Nanoseconds since the epoch; `failed`: why, where it failed."""

    name: str
    kind: SpanKind
    trace: RecordTrace
    start_ns: int
    end_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)
    failed: str = ""


class Tracing(Protocol):
    """Takes spans. `record` is quick, never waits for a network and never raises; any thread."""

    @property
    def on(self) -> bool:
        """False: nobody need make spans."""

    def record(self, span: Span) -> None:
        """Hand over one span of a sampled trace."""

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""


class NoTracing:
    """The default."""

    on = False

    def record(self, span: Span) -> None:
        """See Tracing."""

    def close(self) -> None:
        """See Tracing."""


class TracingUnavailable(Exception):
    """The settings ask for spans, and the packages for it are missing."""


def open_tracing(settings: TraceSettings, worker: str) -> Tracing:
    """Raises TracingUnavailable: an exporter is set, and the extra `otel` is not installed."""
    if settings.exporter == "none":
        return NoTracing()
    try:
        from pipeline.observability.otel import open_otel  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise TracingUnavailable(
            f"MEDIASIEVE_TRACE__EXPORTER (in the file: trace.exporter): {settings.exporter} needs {error.name}: "
            "pip install 'mediasieve[otel]'"
        ) from error
    return open_otel(settings, worker)
