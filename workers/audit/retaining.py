"""Decisions that are in the log are handed to retention."""

from __future__ import annotations

import structlog

from pipeline.evidence.retain import Retainer
from pipeline.streaming.transport import RawRecord
from schemas.ocsf import decision_from_finding
from schemas.topics import DECISION_TOPICS, Topic
from schemas.wire import WireError
from workers.audit.tree import OnLogged

log = structlog.get_logger("mediasieve")


def retaining(retainer: Retainer) -> OnLogged:
    """Calls `retainer` for each decision; one that cannot be read has its digest in the log, and nothing to retain."""

    def on_logged(topic: Topic, record: RawRecord) -> None:
        if topic not in DECISION_TOPICS.values():
            return
        try:
            decision = decision_from_finding(record.value)
        except WireError as error:
            log.error("decision_unreadable", partition=str(record.tp), offset=record.offset, detail=str(error))
            return
        retainer.committed(decision, record.value, topic, record.tp.partition, record.offset)

    return on_logged
