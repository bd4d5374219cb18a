"""What a worker's exit code says; docs/delivery.md explains each and says whether a restart helps."""

from __future__ import annotations

EXIT_SETTINGS = 2
EXIT_FENCED = 3
EXIT_STAGE_FAILED = 4
EXIT_DEAD_LETTER_LIMIT = 5
EXIT_UNKNOWN_VERSION = 6
EXIT_SOURCE_FAILED = 7
EXIT_SUPERSEDED = 8
EXIT_LOG_CORRUPT = 9
EXIT_LOG_GAP = 10
EXIT_STALLED = 70
