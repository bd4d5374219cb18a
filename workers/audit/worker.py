"""The audit worker: settings become a loop over Kafka and a log, and every way to end becomes an exit code."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import KeyFileInvalid, LeafInvalid, LogCorrupt, Superseded, Untrusted
from pipeline.exit_codes import (
    EXIT_LOG_CORRUPT,
    EXIT_LOG_GAP,
    EXIT_SOURCE_FAILED,
    EXIT_SUPERSEDED,
    EXIT_UNKNOWN_VERSION,
)
from pipeline.media.errors import ContentCorrupt
from pipeline.process import WorkerProcess
from pipeline.settings import SettingsInvalid
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.source import KafkaSource
from pipeline.streaming.transport import SourceFailed
from schemas.wire import UnknownMajorVersion
from workers.audit.completeness import GROUP
from workers.audit.errors import AuditContradiction, AuditGap
from workers.audit.log import LogPlace, Writer
from workers.audit.loop import AuditLoop, Hook
from workers.audit.spans import traced
from workers.audit.tree import OnLogged
from workers.settings import Settings

NAME = GROUP
"""Of the worker and of its consumer group."""

STOPS = (
    *(Superseded, LogCorrupt, LeafInvalid, Untrusted, KeyFileInvalid, ContentCorrupt),
    *(AuditContradiction, AuditGap, SourceFailed, UnknownMajorVersion),
)
"""What ends the process with an exit code of its own."""


def run_audit(settings: Settings, on_logged: OnLogged, hook: Hook = lambda _: None) -> int:
    """Run until SIGTERM or SIGINT; returns the process's exit code.

    0: drained. 6: a record of a newer major version. 7: the broker did not say what is committed. 8: another process
    writes to the log now, or the key was retired. 9: log or archive is corrupt, or contradicts Kafka or the keys.
    10: retention has removed records that are not in the log. In each case but 0 nothing was written after the cause
    was seen.

    Raises:
        SettingsInvalid: keys or log URL cannot be used; nothing was started.
    """
    writer = open_writer(settings, hook)
    process = WorkerProcess.start(NAME, settings)
    config = settings.kafka.consumer(NAME) | {"auto.offset.reset": "error"}  # never past a gap in silence
    loop = AuditLoop(
        source=KafkaSource(config, held=True),
        open_log=writer,
        settings=settings.audit,
        names=TopicNames(settings.kafka.topic_prefix),
        clock=process.clock,
        metrics=process.metrics,
        watch=process.watch,
        on_logged=traced(on_logged, process.tracing, process.clock, NAME),
        hook=hook,
    )
    try:
        loop.run(process.stopping)
    except STOPS as error:
        code = process.failed(exit_code(error), error)
        loop.abandon(error)
        return code
    return process.drained()


def open_writer(settings: Settings, hook: Hook = lambda _: None) -> Callable[[str], AuditLog]:
    """Opens trees by `topic/partition`.

    Raises:
        SettingsInvalid: keys or log URL cannot be used.
    """
    try:
        return Writer(LogPlace.of(settings), hook)
    except KeyFileInvalid as error:
        raise SettingsInvalid(f"{error}; `mediasieve audit keygen` makes keys") from error
    except Untrusted as error:
        raise SettingsInvalid(f"MEDIASIEVE_AUDIT__KEPT (in the file: audit.kept): {error}") from error


def exit_code(error: Exception) -> int:
    """Of a process that ends for this reason."""
    match error:
        case Superseded():
            return EXIT_SUPERSEDED
        case AuditGap():
            return EXIT_LOG_GAP
        case SourceFailed():
            return EXIT_SOURCE_FAILED
        case UnknownMajorVersion():
            return EXIT_UNKNOWN_VERSION
        case _:
            return EXIT_LOG_CORRUPT
