"""JSON logs, one object a line, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field

Level = Literal["debug", "info", "warning", "error"]


class LogSettings(BaseModel):
    """What is logged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level = Field(default="info", description="debug, info, warning or error")


def configure_logging(settings: LogSettings, **bound: str) -> None:
    """Once per process; `bound` (worker, pid) is on every line."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            lambda _logger, _method, line: {**bound, **line},  # a context variable would be this thread's alone
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda value, **_: orjson.dumps(value, default=str)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forward()], level=max(level, logging.WARNING), force=True)


class _Forward(logging.Handler):
    """Lines of libraries (librdkafka among them) as JSON too, a line of each kind at most every few seconds.

    A broker that is down would otherwise fill the log with some 20 lines a second.
    """

    SILENCE_S = 5.0
    KINDS = 256

    def __init__(self) -> None:
        super().__init__()
        self._last_s: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        kind = (record.name, "".join(c for c in text if not c.isdigit())[:80])
        if record.created - self._last_s.get(kind, -self.SILENCE_S) < self.SILENCE_S:
            return
        if len(self._last_s) >= self.KINDS:
            self._last_s.clear()
        self._last_s[kind] = record.created
        structlog.get_logger(record.name).log(record.levelno, "library", text=text)
