"""What of a Kafka record becomes an entry."""

from __future__ import annotations

import hashlib
import json
from uuid import UUID

import pytest

from pipeline.evidence.log.errors import LeafInvalid
from pipeline.evidence.log.leaf import Leaf, LeafEvidence, gap_leaf, leaf_of, origin_of, tree_prefix
from pipeline.evidence.log.tiles import MAX_ENTRY_BYTES
from schemas.decision import Decision, Outcome
from schemas.erasure import Erasure, ErasureCause
from schemas.media import EvidenceRef
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.review import Label, ReferenceUpdate, ReviewVerdict, UpdateAction
from schemas.topics import AUDITED_TOPICS, Topic
from schemas.wire import UnknownMajorVersion, encode
from tests.support.cases import NOW, decision

UID = UUID(int=7)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def value_of(record: Decision) -> bytes:
    return encode_finding(finding_from_decision(record))


def some_decision() -> Decision:
    evidence = tuple(EvidenceRef(kind=kind, uri=f"file:///{kind}", sha256=sha(kind)) for kind in ("manifest", "panel"))
    return decision(Outcome.BLOCK).model_copy(update={"evidence": evidence})


def test_a_decision() -> None:
    record = some_decision()
    value = value_of(record)
    leaf = leaf_of(Topic.BLOCK, 3, 42, value)
    assert json.loads(leaf.encode()) == {
        "v": 1,
        "topic": "decisions.block",
        "partition": 3,
        "offset": 42,
        "record_sha256": hashlib.sha256(value).hexdigest(),
        "decision_uid": str(record.decision_uid),
        "tenant": "acme",
        "media_id_sha256": sha("m-1"),
        "outcome": "block",
        "sequence": 0,
        "bundle": "b1",
        "policy": "p1",
        "evidence": [{"kind": kind, "sha256": sha(kind)} for kind in ("manifest", "panel")],
        **({"content_sha256": record.facts.sha256} if record.facts else {}),
    }


def test_the_same_record_gives_the_same_bytes() -> None:
    value = value_of(some_decision())
    entry = leaf_of(Topic.BLOCK, 0, 1, value).encode()
    assert entry == leaf_of(Topic.BLOCK, 0, 1, value).encode()
    assert entry.startswith(b'{"bundle":"b1","content_sha256":' if b"content_sha256" in entry else b'{"bundle":"b1"')
    assert Leaf.parse(entry).encode() == entry
    assert entry != leaf_of(Topic.BLOCK, 0, 2, value).encode()


def test_a_review() -> None:
    record = ReviewVerdict(
        review_id=UUID(int=1),
        decision_uid=UID,
        tenant="acme",
        media_id="m-1",
        label=Label.PHOTOGRAPH,
        reviewer="someone",
        rationale="seen the negative",
        reviewed_at=NOW,
    )
    leaf = leaf_of(Topic.REVIEWS, 0, 0, encode(record))
    assert (leaf.decision_uid, leaf.tenant, leaf.media_id_sha256) == (str(UID), "acme", sha("m-1"))
    assert b"negative" not in leaf.encode()


def test_a_reference_update() -> None:
    record = ReferenceUpdate(
        update_id=UUID(int=1),
        action=UpdateAction.ADD,
        content_sha256=sha("content"),
        label=Label.PHOTOGRAPH,
        stratum="s",
        bundle_version="b1",
        review_id=UUID(int=2),
        updated_at=NOW,
    )
    leaf = leaf_of(Topic.REFERENCE_UPDATES, 0, 0, encode(record))
    assert (leaf.bundle, leaf.content_sha256, leaf.decision_uid) == ("b1", sha("content"), None)


def test_an_erasure_names_what_can_no_longer_be_read_and_nobody() -> None:
    record = Erasure(
        erasure_id=UUID(int=1),
        tenant="acme",
        media_id="m-1",
        sha256s=tuple(sha(str(number)) for number in range(64)),
        cause=ErasureCause.REQUEST,
        actor="someone",
        detail="",
        erased_at=NOW,
    )
    leaf = leaf_of(Topic.ERASURES, 0, 0, encode(record))
    assert leaf.evidence[63] == LeafEvidence(kind="erased", sha256=sha("63"))
    assert (leaf.tenant, leaf.media_id_sha256) == ("acme", sha("m-1"))
    assert b"m-1" not in leaf.encode()
    assert b"someone" not in leaf.encode()


@pytest.mark.parametrize("topic", AUDITED_TOPICS)
@pytest.mark.parametrize("value", [b"", b"\xff", b"{}", b"[1]", b'{"schema_version": "1.0"}', b"null"])
def test_of_a_record_that_cannot_be_read_the_digest_remains(topic: Topic, value: bytes) -> None:
    leaf = leaf_of(topic, 1, 2, value)
    digest = hashlib.sha256(value).hexdigest()
    assert leaf == Leaf(topic=topic, partition=1, offset=2, record_sha256=digest)
    assert Leaf.parse(leaf.encode()) == leaf


def test_a_record_of_a_newer_release_waits_for_the_upgrade() -> None:
    with pytest.raises(UnknownMajorVersion):
        leaf_of(Topic.REVIEWS, 0, 0, b'{"schema_version": "2.0"}')


def test_other_topics_have_no_leaf() -> None:
    with pytest.raises(ValueError, match=r"media\.ingest"):
        leaf_of(Topic.INGEST, 0, 0, b"")


def test_the_largest_leaf_is_an_entry() -> None:
    evidence = tuple(EvidenceRef(kind="\u0800" * 128, uri="file:///x", sha256=sha("x")) for _ in range(16))
    largest = some_decision().model_copy(update={"evidence": evidence})
    assert len(leaf_of(Topic.BLOCK, 2**31, 2**53 - 1, value_of(largest)).encode()) < MAX_ENTRY_BYTES
    many = tuple(LeafEvidence(kind="k" * 128, sha256=sha("x")) for _ in range(400))
    with pytest.raises(LeafInvalid, match="bytes"):
        Leaf(topic=Topic.BLOCK, partition=0, offset=0, record_sha256=sha("x"), evidence=many).encode()


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"{}",
        b"[]",
        b'{"v":1}',
        leaf_of(Topic.BLOCK, 0, 0, b"x").encode() + b" ",
        leaf_of(Topic.BLOCK, 0, 0, b"x").encode().replace(b'"v":1', b'"v":2'),
        leaf_of(Topic.BLOCK, 0, 0, b"x").encode().replace(b'"v":1', b'"v":1,"x":1'),
        leaf_of(Topic.BLOCK, 0, 0, b"x").encode().replace(b'"offset":0,', b'"offset": 0,'),
        leaf_of(Topic.BLOCK, 0, 0, b"x").encode().replace(b'"offset":0,', b'"offset":-1,'),
    ],
)
def test_what_is_not_exactly_a_leaf_is_none(entry: bytes) -> None:
    with pytest.raises(LeafInvalid):
        Leaf.parse(entry)


def test_a_gap_covers_the_records_that_nobody_can_read_any_more() -> None:
    leaf = gap_leaf(Topic.BLOCK, 0, 10, 15)
    assert (leaf.gap_from, leaf.offset) == (10, 14)
    assert Leaf.parse(leaf.encode()) == leaf
    with pytest.raises(ValueError, match="no gap"):
        gap_leaf(Topic.BLOCK, 0, 10, 10)


def test_a_tree_is_named_by_its_partition() -> None:
    assert tree_prefix(Topic.BLOCK, 3) == "decisions.block/3"
    assert origin_of("logs.example/audit", Topic.BLOCK, 3) == "logs.example/audit/decisions.block/3"
