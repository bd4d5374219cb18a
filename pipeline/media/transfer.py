"""One fetch against its caps: bytes, total time, rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.media.errors import FetchDeferred, MediaError
from schemas.decision import ReasonCode


@dataclass(frozen=True, slots=True)
class Body:
    """What an origin sent. `content_type` is what it said of it, without parameters; None if nothing."""

    data: bytes
    content_type: str | None = None


@dataclass(slots=True)
class Transfer:
    """Counts a body as it arrives; the clock runs from construction, the rate from `begin_body`."""

    host: str
    max_bytes: int
    total_s: float
    min_bytes_per_s: int
    grace_s: float
    clock: Callable[[], float] = time.monotonic
    _started_s: float = field(init=False)
    _body_started_s: float = field(init=False)
    _chunks: list[bytes] = field(init=False, default_factory=list)
    _size_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._started_s = self._body_started_s = self.clock()

    @property
    def deadline_s(self) -> float:
        """When, on `clock`, the whole fetch must be over."""
        return self._started_s + self.total_s

    def begin_body(self, announced_bytes: int | None) -> None:
        """Refuse a body that says it is too large, before any of it is read.

        Raises:
            MediaError: MEDIA_TOO_LARGE.
        """
        if announced_bytes is not None and announced_bytes > self.max_bytes:
            raise self._too_large(f"{announced_bytes} bytes announced")
        self._body_started_s = self.clock()

    def add(self, chunk: bytes) -> None:
        """Take one chunk.

        Raises:
            MediaError: MEDIA_TOO_LARGE.
            FetchDeferred: the fetch takes too long, or the body is too slow.
        """
        self._chunks.append(chunk)
        self._size_bytes += len(chunk)
        if self._size_bytes > self.max_bytes:
            raise self._too_large(f"at least {self._size_bytes} bytes sent")
        now_s = self.clock()
        if now_s > self.deadline_s:
            raise FetchDeferred(f"took longer than {self.total_s:g} s in all", self.host)
        body_s = now_s - self._body_started_s
        if body_s > self.grace_s and self._size_bytes < self.min_bytes_per_s * body_s:
            raise FetchDeferred(f"slower than {self.min_bytes_per_s} bytes/s", self.host)

    def data(self) -> bytes:
        """All chunks joined."""
        return b"".join(self._chunks)

    def _too_large(self, what: str) -> MediaError:
        return MediaError(ReasonCode.MEDIA_TOO_LARGE, f"{what}; at most {self.max_bytes} are fetched")
