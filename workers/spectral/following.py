"""Follows the topic `references` and hands every batch the references that are current when it is submitted.

One thread reads the topic, without a group, from its start: each worker sees every pointer. A pointer that cannot be
trusted changes nothing and is logged; one that can takes effect when its files lie on this disk, checked.

What decides at the start is the newest pointer of the topic and of the history in the store: a topic can lose its last
record to a tombstone, or be given an old one again; the history holds every pointer under its number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Protocol, Self, TypeVar

import structlog

from pipeline.evidence.log.errors import Untrusted
from pipeline.evidence.log.key_set import KeySet
from pipeline.media.errors import ContentCorrupt, ContentMissing, StoreUnavailable
from pipeline.observability.metrics import Metrics
from pipeline.streaming.transport import RawRecord
from schemas.reference import ReferenceArtefact, ReferencePointer
from schemas.wire import UnknownMajorVersion
from workers.adaptation.history import newest
from workers.adaptation.pointer import trusted_pointer
from workers.adaptation.settings import ReferenceSettings
from workers.adaptation.store import ReferenceStore
from workers.spectral.references import ReferenceFile, References

log = structlog.get_logger("mediasieve")

_POLL_S = 0.2
_JOIN_S = 5.0

T = TypeVar("T")


class ReferencesUnusable(Exception):
    """The reference that should decide cannot be had; the text says which and what to do."""


class PointerReader(Protocol):
    """What is needed of `RecordReader`."""

    def __enter__(self) -> Self:
        """Nothing is taken yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Give the connection back."""

    def to_end(self, timeout_s: float) -> Iterator[RawRecord]:
        """All records up to the present end."""

    def poll(self, timeout_s: float) -> RawRecord | None:
        """The next record."""


class Following:
    """See SideInput. `current` never waits; it raises once the topic can no longer be read.

    Before `open` returns, the topic was read to its end and the reference it names is on this disk, or `open` raises: a
    worker that does not know what decides must not decide.
    """

    def __init__(
        self,
        base: str,
        keys: KeySet,
        store: ReferenceStore,
        settings: ReferenceSettings,
        open_reader: Callable[[], PointerReader],
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`base`: content hash of the bundle's own reference; pointers for other bundles are not for this worker."""
        self._base = base
        self._keys = keys
        self._store = store
        self._settings = settings
        self._open_reader = open_reader
        self._now_s = now_s
        self._metrics = Metrics()
        self._directory: TemporaryDirectory[str] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._at_start = threading.Event()
        self._failure: Exception | None = None
        self._pointer: ReferencePointer | None = None
        self._references = References()
        self._unusable = "the topic `references` was not read to its end"

    def measure(self, metrics: Metrics) -> None:
        """Before `open`: count there, under the names `mediasieve_reference_*`."""
        self._metrics = metrics

    def open(self) -> None:
        """See SideInput. Raises ReferencesUnusable, and what reading the topic raises."""
        self._directory = TemporaryDirectory(prefix="mediasieve-references-")
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="references", daemon=True)
        self._thread.start()
        ready = self._at_start.wait(self._settings.start_timeout_s)
        if self._failure is not None:
            raise self._failure
        if not ready:
            raise ReferencesUnusable(f"after {self._settings.start_timeout_s:g} s: {self._unusable}")

    def current(self) -> References:
        """See SideInput."""
        if self._failure is not None:
            raise self._failure
        return self._references

    def close(self) -> None:
        """See SideInput. The files stay until the process ends where the thread still fetches one."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        if self._directory is not None and (self._thread is None or not self._thread.is_alive()):
            self._directory.cleanup()
            self._directory = None

    # -- the thread --

    def _run(self) -> None:
        try:
            with self._open_reader() as reader:
                self._catch_up(reader)
                self._tell("references_followed")
                self._at_start.set()
                while not self._stopping.is_set():
                    record = reader.poll(_POLL_S)
                    if record is not None:
                        self._take(record)
        except Exception as error:  # handed to `open` and `current`, which raise it
            self._failure = error
            self._at_start.set()

    def _catch_up(self, reader: PointerReader) -> None:
        """The newest pointer of this base must be usable; those before it need not be."""
        found: ReferencePointer | None = None
        for record in reader.to_end(self._settings.start_timeout_s):
            if record.key is not None and record.key.decode("ascii", "replace") == self._base:
                found = _newer(found, self._trusted(record))
        try:
            kept = self._patiently(lambda: newest(self._store, self._base, self._keys))
            pointer = _newer(found, kept)
            if pointer is not None:
                self._adopt(pointer)
        except (Untrusted, UnknownMajorVersion, ContentCorrupt, ContentMissing) as error:
            raise ReferencesUnusable(
                f"the newest pointer for this bundle cannot be used: {error}; publish a good one with `mediasieve "
                "references rollback` or `promote`"
            ) from error

    def _take(self, record: RawRecord) -> None:
        """A pointer that came while deciding: refused, it changes nothing."""
        pointer = self._trusted(record)
        if pointer is None or pointer == self._pointer:
            return
        if self._pointer is not None and pointer.sequence <= self._pointer.sequence:
            detail = f"sequence {pointer.sequence} after {self._pointer.sequence}: an older pointer was written again"
            self._refuse(record, "Replayed", detail)
            return
        try:
            self._adopt(pointer)
        except (ContentCorrupt, ContentMissing) as error:
            self._refuse(record, type(error).__name__, str(error))

    def _trusted(self, record: RawRecord) -> ReferencePointer | None:
        """The pointer of this base that it is; None, and logged unless it is of another base, where it is none."""
        try:
            pointer = trusted_pointer(record.value, self._keys)
        except Exception as error:  # whatever a stranger wrote there must not stop the fleet
            self._refuse(record, type(error).__name__, str(error))
            return None
        return pointer if pointer.base == self._base else None

    def _refuse(self, record: RawRecord, cause: str, detail: str) -> None:
        self._metrics.count("mediasieve_reference_refused_total", cause)
        log.error("reference_refused", offset=record.offset, cause=cause, detail=detail)

    def _adopt(self, pointer: ReferencePointer) -> None:
        """Returns once it is current, or the worker is to stop. Raises ContentCorrupt and ContentMissing."""
        found = self._patiently(lambda: References(self._fetched(pointer.active), self._fetched(pointer.shadow)))
        if found is not None:
            self._pointer, self._references = pointer, found
            self._tell("references_adopted")

    def _patiently(self, read: Callable[[], T]) -> T | None:
        """What the store says, however long it is away; None when the worker is to stop meanwhile."""
        while not self._stopping.is_set():
            try:
                found = read()
            except StoreUnavailable as error:
                self._unusable = str(error)
                self._metrics.set("mediasieve_reference_waits", 1.0)
                log.warning("reference_waits", detail=str(error))
                self._stopping.wait(self._settings.retry_s)
            else:
                self._metrics.set("mediasieve_reference_waits", 0.0)
                return found
        return None

    def _fetched(self, artefact: ReferenceArtefact | None) -> ReferenceFile | None:
        if artefact is None:
            return None
        assert self._directory is not None  # noqa: S101 - open() made it
        return ReferenceFile(artefact.version, self._store.fetch_artefact(artefact, Path(self._directory.name)))

    def _tell(self, event: str) -> None:
        """Log and metrics say what is in force."""
        active, candidate = self._references.active, self._references.candidate
        sequence = self._pointer.sequence if self._pointer else 0
        decides, watches = active.version if active else self._base, candidate.version if candidate else ""
        self._metrics.say("mediasieve_reference_info", self._base, decides, watches)
        self._metrics.set("mediasieve_reference_sequence", sequence)
        self._metrics.set("mediasieve_reference_adopted_seconds", self._now_s())
        log.info(event, sequence=sequence, active=active.version if active else "bundle", candidate=watches or None)


def _newer(one: ReferencePointer | None, other: ReferencePointer | None) -> ReferencePointer | None:
    return max((p for p in (one, other) if p is not None), key=lambda pointer: pointer.sequence, default=None)
