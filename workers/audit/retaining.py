"""Decisions that are in the log are handed to retention."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from uuid import UUID

import structlog

from pipeline.evidence.retain import Retainer
from pipeline.streaming.transport import RawRecord
from schemas.decision import Decision
from schemas.ocsf import decision_from_finding
from schemas.topics import DECISION_TOPICS, Topic
from schemas.wire import WireError
from workers.audit.tree import OnLogged

log = structlog.get_logger("mediasieve")

_Case = tuple[Decision, RawRecord]


def retaining(retainer: Retainer, threads: int) -> OnLogged:
    """Calls `retainer` for each decision; one that cannot be read has its digest in the log, and nothing to retain.

    Several at once, for an object store needs some ten round trips for each; those of one decision uid in order.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="retain")

    def on_logged(topic: Topic, records: Sequence[RawRecord]) -> None:
        if topic not in DECISION_TOPICS.values():
            return
        done = [pool.submit(_retain, retainer, topic, cases) for cases in _by_uid(records)]
        wait(done)  # all of them, before an error of one makes the caller try all again
        for one in done:
            one.result()

    return on_logged


def _retain(retainer: Retainer, topic: Topic, cases: Sequence[_Case]) -> None:
    for decision, record in cases:
        retainer.committed(decision, record.value, topic, record.tp.partition, record.offset)


def _by_uid(records: Sequence[RawRecord]) -> list[list[_Case]]:
    found: dict[UUID, list[_Case]] = defaultdict(list)
    for record in records:
        try:
            decision = decision_from_finding(record.value)
        except WireError as error:
            log.error("decision_unreadable", partition=str(record.tp), offset=record.offset, detail=str(error))
        else:
            found[decision.decision_uid].append((decision, record))
    return list(found.values())
