"""What the log keeps of one Kafka record: digests and names, as canonical JSON (RFC 8785), from the record alone.

No clock and no setting has a part in it, so that a record that is read again gives the same leaf byte for byte.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.evidence.log.errors import LeafInvalid
from pipeline.evidence.log.tiles import MAX_ENTRY_BYTES
from schemas.decision import Decision, Outcome
from schemas.erasure import Erasure
from schemas.ocsf import decision_from_finding
from schemas.review import ReferenceUpdate, ReviewAction, ReviewVerdict
from schemas.topics import AUDITED_TOPICS, DECISION_TOPICS, Topic
from schemas.types import Sha256, ShortText
from schemas.wire import WireError, decode, describe, parse_json

LEAF_VERSION: Literal[1] = 1
_MAX_EXACT = 2**53 - 1
"""Largest integer that RFC 8785 can write; Kafka offsets stay below it for any log that fits a disk."""


class LeafEvidence(BaseModel):
    """The digest of one object, never the object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ShortText
    sha256: Sha256


class Leaf(BaseModel):
    """One entry. Absent fields are left out; `record_sha256` is of the Kafka record's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = LEAF_VERSION
    topic: Topic
    partition: Annotated[int, Field(ge=0, le=_MAX_EXACT)]
    offset: Annotated[int, Field(ge=0, le=_MAX_EXACT)]
    record_sha256: Sha256
    decision_uid: str | None = None
    tenant: str | None = None
    media_id_sha256: Sha256 | None = None
    outcome: Outcome | None = None
    sequence: Annotated[int, Field(ge=0, le=_MAX_EXACT)] | None = None
    bundle: str | None = None
    policy: str | None = None
    evidence: tuple[LeafEvidence, ...] = ()
    content_sha256: Sha256 | None = None
    gap_from: Annotated[int, Field(ge=0, le=_MAX_EXACT)] | None = None
    """Only in a leaf that stands for the records `gap_from` to `offset`: see `gap_leaf`."""

    def encode(self) -> bytes:
        """The entry's bytes: at most 65,535. Raises LeafInvalid when they would be more."""
        data = rfc8785.dumps(self.model_dump(mode="json", exclude_none=True))
        if len(data) > MAX_ENTRY_BYTES:
            raise LeafInvalid(f"{self.topic}/{self.partition}@{self.offset}: a leaf of {len(data)} bytes")
        return data

    @classmethod
    def parse(cls, entry: bytes) -> Leaf:
        """Read what `encode` wrote. Raises LeafInvalid when it is not exactly that."""
        try:
            leaf = cls.model_validate(parse_json(entry))
        except ValidationError as error:
            raise LeafInvalid(f"no leaf: {describe(error)}") from error
        except WireError as error:
            raise LeafInvalid(f"no leaf: {error}") from error
        if leaf.encode() != entry:
            raise LeafInvalid(f"{leaf.topic}/{leaf.partition}@{leaf.offset}: the leaf is not canonical JSON")
        return leaf


def leaf_of(topic: Topic, partition: int, offset: int, value: bytes) -> Leaf:
    """The leaf of a committed record; of one that cannot be read the digest alone.

    Raises:
        ValueError: the topic is not audited.
        UnknownMajorVersion: the record is of a newer release; upgrade, else its leaf could never be found by name.
    """
    if topic not in AUDITED_TOPICS:
        raise ValueError(f"topic {topic} is not audited")
    bare = Leaf(topic=topic, partition=partition, offset=offset, record_sha256=_sha256(value))
    try:
        return _read(bare, value)
    except WireError:
        return bare


def gap_leaf(topic: Topic, partition: int, first: int, until: int) -> Leaf:
    """Kafka removed the records `first` to `until - 1` before they were logged; `record_sha256` is of nothing.

    Raises:
        ValueError: `until` is not greater than `first`.
    """
    if until <= first:
        raise ValueError(f"no gap from {first} to {until}")
    nothing = _sha256(b"")
    return Leaf(topic=topic, partition=partition, offset=until - 1, record_sha256=nothing, gap_from=first)


def origin_of(log_name: str, topic: Topic, partition: int) -> str:
    """The origin of the tree of one partition."""
    return f"{log_name}/{tree_prefix(topic, partition)}"


def tree_prefix(topic: Topic, partition: int) -> str:
    """Where that tree lies under the log's URL."""
    return f"{topic.value}/{partition}"


def _read(bare: Leaf, value: bytes) -> Leaf:
    if bare.topic in DECISION_TOPICS.values():
        return _of_decision(bare, decision_from_finding(value))
    if bare.topic is Topic.REVIEWS:
        return _of_review(bare, decode(ReviewVerdict, value))
    if bare.topic is Topic.REVIEW_ACTIONS:
        return _of_review(bare, decode(ReviewAction, value))
    if bare.topic is Topic.REFERENCE_UPDATES:
        return _of_update(bare, decode(ReferenceUpdate, value))
    return _of_erasure(bare, decode(Erasure, value))


def _of_decision(bare: Leaf, decision: Decision) -> Leaf:
    admission = decision.admission
    return bare.model_copy(
        update={
            "decision_uid": str(decision.decision_uid),
            "tenant": admission.tenant,
            "media_id_sha256": _sha256(admission.media_id.encode()),
            "outcome": decision.outcome,
            "sequence": decision.sequence,
            "bundle": admission.bundle_version,
            "policy": admission.policy_version,
            "evidence": tuple(LeafEvidence(kind=ref.kind, sha256=ref.sha256) for ref in decision.evidence),
            "content_sha256": decision.facts.sha256 if decision.facts else None,
        }
    )


def _of_review(bare: Leaf, review: ReviewVerdict | ReviewAction) -> Leaf:
    return bare.model_copy(
        update={
            "decision_uid": str(review.decision_uid),
            "tenant": review.tenant,
            "media_id_sha256": _sha256(review.media_id.encode()),
        }
    )


def _of_update(bare: Leaf, update: ReferenceUpdate) -> Leaf:
    return bare.model_copy(update={"bundle": update.bundle_version, "content_sha256": update.content_sha256})


def _of_erasure(bare: Leaf, erasure: Erasure) -> Leaf:
    return bare.model_copy(
        update={
            "tenant": erasure.tenant,
            "media_id_sha256": _sha256(erasure.media_id.encode()),
            "evidence": tuple(LeafEvidence(kind="erased", sha256=sha256) for sha256 in erasure.sha256s),
        }
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
