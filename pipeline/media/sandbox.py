"""Decoding in child processes, so that hostile bytes can end only the child that read them."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2

from pipeline.guarded_process import ChildDied, ChildRaised, ChildTimeout, GuardedProcess, Limits
from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode

Reply = TypeVar("Reply")
Handler = Callable[[bytes, str | None], Reply]
"""Decodes `(data, declared_content_type)`; raises MediaError for bytes that it cannot use."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """A MediaError on its way across the border."""

    code: ReasonCode
    detail: str


class DecodeSandbox(Generic[Reply]):
    """`workers` guarded children with one handler each. `call` is thread-safe; a dead child is replaced.

    `make_handler` must be picklable; it runs in the child and warms up everything that a call uses. The reply
    must be picklable. `limits` are described at `Limits`; `timeout_s` is wall time from sending the bytes on.
    """

    def __init__(
        self, make_handler: Callable[[], Handler[Reply]], *, workers: int, limits: Limits, timeout_s: float
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._make_handler = _MediaErrorsAsValues(make_handler)
        self._workers = workers
        self._limits = limits
        self._timeout_s = timeout_s
        self._is_open = False
        self._free: queue.Queue[GuardedProcess | None] = queue.Queue()  # None: closed

    def open(self) -> None:
        """Start all children in parallel and wait until they are ready.

        Raises:
            ChildRaised, ChildDied, ChildTimeout: as `GuardedProcess.start`.
        """
        children = [self._spawn() for _ in range(self._workers)]
        try:
            for child in children:
                child.wait_ready()
        except BaseException:
            for child in children:
                child.kill()
            raise
        for child in children:
            self._free.put(child)
        self._is_open = True

    def call(self, data: bytes, declared_content_type: str | None = None) -> Reply:
        """Decode in a free child, waiting for one when there is none.

        Raises:
            MediaError: the handler's own; ANALYSIS_CRASH when the child died or took longer than `timeout_s`;
                MEDIA_TOO_LARGE when it ran out of `limits.memory_bytes`.
            ChildRaised: the handler raised anything else, which is a bug.
            ChildDied, ChildTimeout: a replaced child could not be started.
        """
        child = self._take()
        try:
            child.wait_ready()
            return self._ask(child, data, declared_content_type)
        finally:  # the replacement starts while the caller goes on
            self._free.put(child if child.alive else self._spawn())

    def close(self) -> None:
        """End all children, each after its running call. Later calls raise RuntimeError."""
        if not self._is_open:
            return
        self._is_open = False
        for _ in range(self._workers):
            child = self._free.get()
            if child is not None:
                child.close()
        self._free.put(None)

    def _spawn(self) -> GuardedProcess:
        child = GuardedProcess(self._make_handler, name="decoder", limits=self._limits)
        child.spawn()
        return child

    def _take(self) -> GuardedProcess:
        if not self._is_open:
            raise RuntimeError("the decode sandbox is not open; call open() first")
        child = self._free.get()
        if child is None:
            self._free.put(None)
            raise RuntimeError("the decode sandbox has been closed")
        return child if child.alive else self._spawn()  # it died idle, which is not this item's doing

    def _ask(self, child: GuardedProcess, data: bytes, declared_content_type: str | None) -> Reply:
        try:
            reply: Reply | _Refused = child.call((data, declared_content_type), self._timeout_s)
        except (ChildDied, ChildTimeout) as error:
            raise MediaError(ReasonCode.ANALYSIS_CRASH, f"decoder {error}") from error
        except ChildRaised as error:
            if not error.out_of_memory:
                raise
            detail = f"decoding needs more than {self._limits.memory_bytes} bytes of memory"
            raise MediaError(ReasonCode.MEDIA_TOO_LARGE, detail) from error
        if isinstance(reply, _Refused):
            raise MediaError(reply.code, reply.detail)
        return reply


@dataclass(frozen=True, slots=True)
class _MediaErrorsAsValues(Generic[Reply]):
    """Runs in the child."""

    make_handler: Callable[[], Handler[Reply]]

    def __call__(self) -> Callable[[tuple[bytes, str | None]], Reply | _Refused]:
        handler = self.make_handler()

        def handle(request: tuple[bytes, str | None]) -> Reply | _Refused:
            try:
                return handler(*request)
            except MediaError as error:
                return _Refused(error.code, error.detail)
            except cv2.error as error:
                if error.code == cv2.Error.StsNoMem:  # OpenCV's own kind of MemoryError
                    raise MemoryError(str(error)) from error
                raise

        return handle
