"""What happens to a decision once it is seen committed: archived, and locked where the store can."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pipeline.evidence.archive import Archive, ArchivedDecision, kept_as
from pipeline.evidence.legal_hold import LegalHolds
from pipeline.evidence.object_lock import ObjectLock
from pipeline.evidence.retention import RetentionPolicy, due_at
from schemas.decision import Decision, Risk
from schemas.topics import Topic


class Retainer:
    """Called for each decision record in the order of its partition; repeating a call changes nothing."""

    def __init__(
        self,
        archive: Archive,
        holds: LegalHolds,
        now: Callable[[], datetime],
        lock: ObjectLock | None = None,
        policy: RetentionPolicy | None = None,
    ) -> None:
        """`now` is the wall clock, with a zone. `lock`, with the policy that says how long, of a store that locks.

        Raises:
            ValueError: one of `lock` and `policy` without the other.
        """
        if (lock is None) != (policy is None):
            raise ValueError("a lock needs a policy that says how long, and a policy a lock")
        self._archive = archive
        self._holds = holds
        self._now = now
        self._locking = (lock, policy) if lock is not None and policy is not None else None

    def committed(self, decision: Decision, value: bytes, topic: Topic, partition: int, offset: int) -> None:
        """Archive the record and lock what it names until its period is over; nothing for a `released` pass.

        Never before the decision is visible to a `read_committed` reader: an aborted attempt's evidence must stay
        deletable. Never shortens a lock. Of a decision with several records all are locked until the last is due.

        Args:
            decision: what `value` says.
            value: the record's bytes as read.
            topic: the logical topic it was read from.
            partition: of that topic.
            offset: in that partition.

        Raises:
            StoreUnavailable: not done, or half done; call again later.
        """
        if kept_as(decision, topic)[1] is Risk.RELEASED:
            return
        archived = self._archive.put(decision, value, topic, partition, offset)
        if self._locking is not None:
            self._secure(archived, *self._locking)

    def _secure(self, archived: ArchivedDecision, lock: ObjectLock, policy: RetentionPolicy) -> None:
        records = self._archive.unerased(archived.decision_uid)
        if not records:
            return
        until = due_at(policy, records)
        held = self._holds.holding(archived.tenant, archived.media_id_sha256)
        for key in sorted({p.key for record in records for p in (*record.payloads, record.record)}):
            lock.retain(key, until, self._now())
            if held:
                lock.hold(key, on=True)
