"""A whole evidence side in memory: store, keys, archive, holds, eraser, with a clock that the test sets."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.evidence.archive import Archive, ArchivedDecision
from pipeline.evidence.due import Applied, Unreadable, apply_retention
from pipeline.evidence.erasure import Eraser, Vault
from pipeline.evidence.legal_hold import LegalHolds
from pipeline.evidence.object_lock import LockState, NoObjectLock, ObjectLock
from pipeline.evidence.retain import Retainer
from pipeline.evidence.retention import RetentionPolicy
from pipeline.media.content_store import ContentStore
from pipeline.media.errors import ContentMissing, StoreUnavailable
from pipeline.media.key_store import KeyStore
from pipeline.media.master_keys import MasterKeys
from pipeline.media.objects import Objects
from schemas.decision import Decision, Outcome, Reason, ReasonCode, Risk, Thresholds
from schemas.erasure import Erasure
from schemas.media import Admission, EvidenceRef, MediaFacts
from schemas.media import decision_uid as uid_of
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.topics import DECISION_TOPICS
from schemas.types import StageName

T0 = datetime(2100, 1, 1, 13, 45, tzinfo=UTC)
"""Long after anything that a test puts: to the evidence side all objects were put before the decision."""

POLICY = RetentionPolicy.model_validate(
    {
        "version": "test",
        "default": {"low_risk": "30d", "cleared": "60d", "escalate": "1y", "block": "6y"},
        "tenant": {"short": {"block": "7d"}},
    }
)


class Crash(Exception):
    """The process dies here."""


@dataclass
class Fuse:
    """Counts what changes anything; at `blow_at` the change does not happen and the process dies."""

    blow_at: int | None = None
    count: int = 0

    def burn(self) -> None:
        if self.count == self.blow_at:
            raise Crash
        self.count += 1


@dataclass
class Version:
    """One put of one key, and what locks it."""

    data: bytes
    until: datetime | None = None
    held: bool = False


class FusedObjects(Objects):
    """Each change counted. Keeps every version of an object, as a bucket with Object Lock does."""

    def __init__(self, fuse: Fuse, url: str = "memory://") -> None:
        super().__init__(url)
        self._fuse = fuse
        self.versions: defaultdict[str, list[Version]] = defaultdict(list)

    def create(self, key: str, data: bytes) -> bool:
        self._fuse.burn()
        created = super().create(key, data)
        if created:
            self.versions[key].append(Version(data))
        return created

    def replace(self, key: str, data: bytes) -> None:
        self._fuse.burn()
        super().replace(key, data)
        self.versions[key].append(Version(data))

    def delete(self, key: str) -> None:
        self._fuse.burn()
        super().delete(key)


@dataclass
class Journal:
    """Announced erasures in order."""

    fuse: Fuse
    announced: list[Erasure] = field(default_factory=list)

    def announce(self, erasure: Erasure) -> None:
        self.fuse.burn()
        self.announced.append(erasure)


class BrokenJournal:
    """Kafka is away."""

    def announce(self, erasure: Erasure) -> None:
        raise StoreUnavailable("no broker answers")


@dataclass
class MemoryLock:
    """An Object Lock over the versions of a store, with the store's own clock: a locked version stays."""

    objects: FusedObjects
    now: Callable[[], datetime]

    @property
    def states(self) -> dict[str, LockState]:
        """Of all objects that were ever locked or held."""
        states = {key: self.state(key) for key in self.objects.versions}
        return {key: state for key, state in states.items() if state != LockState()}

    def supports(self) -> bool:
        return True

    def retain(self, key: str, until: datetime, now: datetime) -> None:
        for version in self.objects.versions[key][-1:]:
            if until > now and (version.until is None or version.until < until):
                version.until = until

    def hold(self, key: str, *, on: bool) -> None:
        for version in self.objects.versions[key]:
            version.held = on

    def state(self, key: str) -> LockState:
        versions = self.objects.versions[key]
        until = max((v.until for v in versions if v.until is not None), default=None)
        return LockState(until, any(v.held for v in versions))

    def starts(self, key: str, size: int) -> list[tuple[bytes, int]]:
        return [(v.data[:size], len(v.data)) for v in self.objects.versions[key]]

    def delete(self, key: str) -> None:
        versions = self.objects.versions[key]
        for version in list(versions):
            if LockState(version.until, version.held).forbids(self.now()):
                raise StoreUnavailable(f"{key}: AccessDenied, a version is locked")
            versions.remove(version)
        self.objects.delete(key)


class Desk:
    """Everything that the evidence side consists of; `now` is set by the test."""

    def __init__(self, *, encrypted: bool = True, locking: bool = False, url: str | None = None) -> None:
        self.now = T0
        self.fuse = Fuse()
        self.key_objects = FusedObjects(self.fuse)
        self.keys = KeyStore(self.key_objects, MasterKeys({"m": bytes(32)}, "m")) if encrypted else None
        self.store = ContentStore(url or "memory://", None, self.keys)
        self.store.objects = objects = FusedObjects(self.fuse, url or "memory://")
        self.archive = Archive(self.store, self.store.objects)
        self.holds = LegalHolds(self.store.objects, lambda: self.now)
        self.lock: ObjectLock = MemoryLock(objects, lambda: self.now) if locking else NoObjectLock()
        self.vault = Vault(self.store.objects, self.keys, self.lock)
        self.journal = Journal(self.fuse)
        self.eraser = Eraser(self.archive, self.vault, self.holds, self.journal, lambda: self.now)
        locks = {"lock": self.lock, "policy": POLICY} if locking else {}
        self.retainer = Retainer(self.archive, self.holds, lambda: self.now, **locks)  # type: ignore[arg-type]
        self._offset = 0

    def decide(
        self,
        media_id: str = "m1",
        outcome: Outcome = Outcome.BLOCK,
        *,
        tenant: str = "acme",
        content: bytes = b"original bytes",
        panel: bytes | None = b"panel",
        sequence: int = 0,
        at: datetime = T0,
        archived: bool = True,
        **fields: Any,
    ) -> Decision:
        """Put content and panel, decide, and see the decision committed."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.store.put(tenant, sha256, content)
        evidence: tuple[EvidenceRef, ...] = ()
        if panel is not None:
            uri, digest = self.store.put_evidence(tenant, panel, ".png")
            evidence = (EvidenceRef(kind="spectral_panel", uri=uri, sha256=digest),)
        made = decision(
            media_id, outcome, tenant=tenant, sha256=sha256, evidence=evidence, sequence=sequence, at=at, **fields
        )
        if archived:
            self.commit(made)
        return made

    def commit(self, made: Decision) -> None:
        """At the next offset."""
        self.retainer.committed(made, record_bytes(made), DECISION_TOPICS[made.outcome], 0, self._offset)
        self._offset += 1

    def apply(self, *, dry_run: bool = False) -> list[Applied]:
        """`retention apply` at `now`, with an archive that can be read."""
        found = self.apply_all(dry_run=dry_run)
        applied = [each for each in found if isinstance(each, Applied)]
        assert applied == found
        return applied

    def apply_all(self, *, dry_run: bool = False) -> list[Applied | Unreadable]:
        """`retention apply` at `now`."""
        return list(apply_retention(self.archive, POLICY, self.eraser, self.now, "retention", dry_run=dry_run))

    def after(self, **period: float) -> None:
        """Set the clock to that long after T0."""
        self.now = T0 + timedelta(**period)

    def readable(self, made: Decision) -> dict[str, bool]:
        """Whether content, evidence and all archived records of a decision can be read."""
        assert made.facts is not None
        tenant, sha256 = made.admission.tenant, made.facts.sha256
        found = {"content": self._reads(lambda: self.store.get(tenant, sha256))}
        for ref in made.evidence:
            found[ref.kind] = self._reads(lambda ref=ref: self.store.get_evidence(ref.uri, ref.sha256))  # type: ignore[misc]
        records = self.archive.get(made.decision_uid)
        found["record"] = all(self._reads(lambda r=r: self.archive.value(r)) for r in records)  # type: ignore[misc]
        return found

    @staticmethod
    def _reads(read: Any) -> bool:
        try:
            read()
        except ContentMissing:
            return False
        return True


def decision(
    media_id: str = "m1",
    outcome: Outcome = Outcome.BLOCK,
    *,
    tenant: str = "acme",
    sha256: str = "0" * 64,
    evidence: Sequence[EvidenceRef] = (),
    sequence: int = 0,
    at: datetime = T0,
    risk: Risk | None = None,
    bundle: str = "b1",
) -> Decision:
    """A valid one; a pass is low_risk unless told otherwise."""
    uid = uid_of(tenant, media_id, sha256, "p1", bundle)
    return Decision(
        decision_uid=uid,
        sequence=sequence,
        outcome=outcome,
        risk=(risk or Risk.LOW_RISK) if outcome is Outcome.PASS else None,
        stage_exited=StageName.MLLM,
        admission=Admission(
            tenant=tenant,
            media_id=media_id,
            decision_uid=uid,
            uri=f"https://example.org/{media_id}",
            admitted_at=at,
            policy_version="p1",
            bundle_version=bundle,
        ),
        facts=MediaFacts(sha256=sha256, size_bytes=1, format="png", lossless=True, width=1, height=1),
        thresholds=Thresholds(t1=0.3, priority=0.7, t2=0.5, t3_block=0.8, t3_clear=0.2, p12_block=0.6, uncertain=0.5),
        evidence=tuple(evidence),
        reasons=(Reason(code=ReasonCode.UNCERTAIN),),
        decided_at=at,
    )


def record_bytes(made: Decision) -> bytes:
    """As it stands in Kafka."""
    return encode_finding(finding_from_decision(made))


def archived_records(desk: Desk, made: Decision) -> list[ArchivedDecision]:
    """By sequence."""
    return desk.archive.get(made.decision_uid)
