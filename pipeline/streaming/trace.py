"""Which span the work on a record is: of the producer's trace, or of one that begins with the record."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from schemas.envelope import TraceContext, new_trace, parse_traceparent

Samples = Callable[[str], bool]
"""Whether a trace that begins here is recorded, by its id."""


@dataclass(frozen=True, slots=True)
class RecordTrace:
    """The work of one stage on one record as a span. `parent_id` None: the trace begins here."""

    trace_id: str
    span_id: str
    parent_id: str | None
    sampled: bool

    @property
    def context(self) -> TraceContext:
        """What the record's results are children of."""
        return TraceContext(self.trace_id, self.span_id, self.sampled)


class FlagLimit:
    """How many traces a second outsiders may have recorded in this process: whoever may send may set the flag.

    A token bucket that holds one second's worth, at least one.
    """

    def __init__(self, per_s: float) -> None:
        """Full at first; 0: no flag of outsiders counts."""
        self._per_s = per_s
        self._most = max(1.0, per_s) if per_s > 0.0 else 0.0
        self._tokens = self._most
        self._at_s: float | None = None
        self._lock = threading.Lock()

    def admit(self, now_s: float) -> bool:
        """Count one; `now_s` by a monotonic clock. False: over the limit, treat the flag as not set."""
        with self._lock:
            since_s = 0.0 if self._at_s is None else now_s - self._at_s
            self._at_s = now_s
            self._tokens = min(self._most, self._tokens + since_s * self._per_s)
            admitted = self._tokens >= 1.0
            self._tokens -= admitted
            return admitted


def trace_of(header: bytes | None, seed: str, stage: str, samples: Samples) -> RecordTrace:
    """The same at each delivery of the record: ids follow from its place, `seed`, so no state is kept for them.

    Parent-based: whether a trace that came with the record is recorded, its producer has decided; see FlagLimit.
    """
    given = parse_traceparent(header)
    if given is None:
        new = new_trace(seed)
        return RecordTrace(new.trace_id, new.span_id, None, samples(new.trace_id))
    own = hashlib.sha256(f"{given.trace_id}\x1f{seed}\x1f{stage}".encode()).hexdigest()[:16]
    return RecordTrace(given.trace_id, own, given.span_id, given.sampled)


def ratio(share: float) -> Samples:
    """A share of all traces, the same ones in every process: OpenTelemetry's TraceIdRatioBased."""
    bound = round(share * 2**64)
    return lambda trace_id: int(trace_id[16:], 16) < bound
