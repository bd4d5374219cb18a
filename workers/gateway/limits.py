"""How much one caller may send: a token bucket for each, in this process."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.streaming.clock import Clock
from workers.gateway.settings import GatewaySettings
from workers.web.principal import Principal
from workers.web.problems import ProblemError

_MAX_CALLERS = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class RateLimits:
    """Thread-safe. Several gateways count each for itself."""

    def __init__(self, settings: GatewaySettings, clock: Clock) -> None:
        """Everybody begins with a full bucket."""
        self._settings = settings
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, caller: Principal, items: int) -> None:
        """Count the items. Raises ProblemError: 429 with the time until so many are free, 413 for more than ever."""
        rate = caller.limits.per_second or self._settings.per_second
        burst = caller.limits.burst or self._settings.burst
        if items > burst:
            detail = f"items: {items} at once, but this caller may send at most {burst}; split the batch"
            raise ProblemError(413, "batch-too-large", "Too many items", detail)
        with self._lock:
            wait_s = self._take(caller.name, items, rate, burst)
        if wait_s > 0:
            seconds = max(1, math.ceil(wait_s))
            detail = f"this caller may send {rate:g} items a second, {burst} at once; wait {seconds} s"
            raise ProblemError(429, "rate-exceeded", "Too many items", detail, headers={"Retry-After": str(seconds)})

    def _take(self, name: str, items: int, rate: float, burst: int) -> float:
        now_s = self._clock.monotonic_s()
        bucket = self._buckets.pop(name, None) or _Bucket(float(burst), now_s)
        self._buckets[name] = bucket
        if len(self._buckets) > _MAX_CALLERS:
            self._buckets.popitem(last=False)  # the one that has been silent for longest
        bucket.tokens = min(float(burst), bucket.tokens + rate * (now_s - bucket.at_s))
        bucket.at_s = now_s
        if bucket.tokens < items:
            return (items - bucket.tokens) / rate
        bucket.tokens -= items
        return 0.0


class OpenUploads:
    """How many bodies with files are being received: each may lie in a temporary file. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        """Nobody sends yet."""
        self._most = most
        self._open = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """While one is received and stored. Raises ProblemError 503: too many already."""
        if self._open >= self._most:
            detail = f"{self._most} files are being received; nothing of yours was read"
            raise ProblemError(503, "uploads-full", "Too many uploads", detail, headers={"Retry-After": "2"})
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def upload_limit(caller: Principal, settings: GatewaySettings) -> int:
    """Bytes of one file; a key can only have less than the gateway takes."""
    return min(settings.max_upload_bytes, caller.limits.max_bytes or settings.max_upload_bytes)


def content_types(caller: Principal, settings: GatewaySettings) -> frozenset[str]:
    """What files of this caller may be."""
    own = caller.limits.content_types
    return settings.content_types if own is None else settings.content_types & own


def uri_schemes(caller: Principal, settings: GatewaySettings) -> frozenset[str]:
    """Of URIs that this caller may name; a key's own take the place of the gateway's."""
    own = caller.limits.schemes
    return settings.schemes if own is None else own
