"""What there is to read when a transaction stays open: who wrote its records, what became of the writer, the broker."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fault.processes import Worker

LINES, LENGTH = 12, 300
TRANSACTION_EVENTS = re.compile(r'"event":"(transaction_reinit|commit_failed|worker_stopped)"|GETPID|TXNERR')
COORDINATOR = re.compile(r"skipped|due to timeout|failed|ERROR|WARN")


def autopsy(open_transactions: Sequence[dict[str, Any]], workers: Sequence[Worker], broker_logs: Sequence[Path]) -> str:
    """The open transactions, the workers whose logs name their records or tell of trouble, and the coordinator."""
    keys = {record["key"] for where in open_transactions for record in where["records"]} - {""}
    lines = [f"open: {where}" for where in open_transactions]
    for worker in workers:
        lines += _of_worker(worker, keys)
    for path in broker_logs:
        lines += [f"{path.parent.name}:", *_last(line for line in _lines(path) if COORDINATOR.search(line))]
    return "\n".join(lines)


def _of_worker(worker: Worker, keys: Collection[str]) -> list[str]:
    """Nothing for one whose log has nothing to say."""
    named = _last(line for line in worker.log.splitlines() if any(f'"{key}"' in line for key in keys))
    told = _last(line for line in worker.log.splitlines() if TRANSACTION_EVENTS.search(line))
    if not named and not told:
        return []
    code = worker.process.poll()
    state = "alive" if code is None else f"exit {code}"
    hooks = worker.journal.read_text().split("\n")[-6:-1] if worker.journal.exists() else []
    return [f"{worker.log_path.name}, pid {worker.process.pid}, {state}, last hooks {hooks}:", *named, *told]


def _last(lines: Iterator[str]) -> list[str]:
    return [f"    {line[:LENGTH]}" for line in list(lines)[-LINES:]]


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []
