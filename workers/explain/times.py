"""Times and sizes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(value: datetime) -> str:
    """`2026-01-31 12:00:03 UTC`."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def milliseconds(value: float | None) -> str:
    """`96.8 ms`, `2.31 s`, or `not recorded`."""
    if value is None:
        return "not recorded"
    return f"{value:.3g} ms" if value < 1000.0 else f"{value / 1000.0:.3g} s"


def size(count: int | None) -> str:
    """`482,133 bytes`, or nothing."""
    return "" if count is None else f"{count:,} bytes"
