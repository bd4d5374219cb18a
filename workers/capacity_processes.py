"""Processor time of process trees, from Linux's /proc: the kernel's own accounting, in seconds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_PARENT, _SESSION, _USER, _CHILDREN_END = 1, 3, 11, 15
"""Fields of /proc/PID/stat after the name: parent, session, utime; utime, stime, cutime and cstime stand in a row."""


def session_cpu_s(sessions: Iterable[int]) -> float:
    """Processor seconds of all processes of these sessions, ended and waited-for children included.

    A worker is started as the leader of a session of its own, and so are brokers.
    """
    wanted = set(sessions)
    return sum(_cpu_s(fields) for fields in _all_fields() if int(fields[_SESSION]) in wanted)


def own_cpu_s() -> float:
    """Processor seconds of this process, its running children in the same session, and those that ended."""
    me, session = str(os.getpid()), str(os.getsid(0))
    children = [f for f in _all_fields() if f[_PARENT] == me and f[_SESSION] == session]
    return sum(os.times()[:4]) + sum(map(_cpu_s, children))


def machine_cpu_s() -> float:
    """Busy processor seconds of the whole machine since its start, over all cores."""
    fields = [int(x) for x in (_PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / _TICKS


def _cpu_s(fields: list[str]) -> float:
    return sum(map(int, fields[_USER:_CHILDREN_END])) / _TICKS


def _all_fields() -> Iterable[list[str]]:
    for directory in _PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            text = (directory / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        yield text.rpartition(")")[2].split()
