"""The audit log's word on a decision, as `mediasieve explain` tells it."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from pipeline.evidence.archive import Archive
from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import LogUnavailable
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf, gap_leaf, leaf_of, origin_of, tree_prefix
from pipeline.evidence.log.proof import Proof, make_proof
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import open_log_storage
from schemas.decision import Decision
from schemas.topics import Topic
from tests.support.explaining import Case, finding, found
from workers.audit.log import LogPlace
from workers.audit.settings import AuditSettings
from workers.explain.archived import ArchiveSource
from workers.explain.events import Place
from workers.explain.proof import LogProver, ProofFile
from workers.explain.sources import Found
from workers.explain.story import ProofStory, Proved

NAME = "mediasieve"
SIGNER = Signer.generate(NAME)
KEYS = KeySet([SIGNER.verifier])
PLACE = Place(Topic.BLOCK, 0, 7)


def logged(*leaves: Leaf) -> LogPlace:
    place = LogPlace(open_log_storage("memory://"), AuditSettings(log_name=NAME))
    log = AuditLog.open(place.tree(tree_prefix(Topic.BLOCK, 0)), origin_of(NAME, Topic.BLOCK, 0), SIGNER, KEYS)
    log.append([leaf.encode() for leaf in leaves])
    return place


def leaves(decision: Decision, *offsets: int) -> list[Leaf]:
    """The decision at offset 7, other records elsewhere."""
    return [leaf_of(Topic.BLOCK, 0, o, finding(decision) if o == 7 else b"other %d" % o) for o in offsets]


def proof_file(place: LogPlace, index: int) -> bytes:
    return make_proof(place.reader(tree_prefix(Topic.BLOCK, 0), KEYS), index)


@pytest.fixture(scope="module")
def decision() -> Decision:
    return Case().blocked()


def told(place: LogPlace, records: Found, keys: KeySet = KEYS) -> ProofStory:
    return LogProver(place, keys).prove(records)


def test_a_record_in_the_log_is_proved(decision: Decision) -> None:
    place = logged(*leaves(decision, 1, 2, 5, 7, 9))
    story = told(place, found(decision, place=PLACE))
    head = place.reader(tree_prefix(Topic.BLOCK, 0), KEYS).checkpoint()
    assert story.proved is Proved.VERIFIED
    assert (story.tree, story.leaf_index, story.tree_size) == ("mediasieve/decisions.block/0", 3, 5)
    assert story.root == base64.b64encode(head.root).decode()
    assert story.signature == f"verified with mediasieve+{SIGNER.verifier.key_id.hex()}"
    assert story.said.startswith("The record at decisions.block[0]@7 is in the audit log")


def test_a_file_proves_the_same_without_the_log(decision: Decision) -> None:
    data = proof_file(logged(*leaves(decision, 1, 7)), 1)
    story = ProofFile(data, KEYS).prove(found(decision))
    assert story.proved is Proved.VERIFIED
    assert story.record_sha256 == found(decision).events[0].sha256


def test_without_keys_a_file_is_shown_and_not_believed(decision: Decision) -> None:
    story = ProofFile(proof_file(logged(*leaves(decision, 7)), 0), None).prove(found(decision))
    assert story.proved is Proved.ABSENT
    assert "--key" in story.said
    assert story.signature == "not checked: no public keys were given"
    assert story.tree_size == 1


def changed_path(data: bytes) -> bytes:
    proof = Proof.parse(data)
    return replace(proof, path=(bytes(32), *proof.path[1:])).encode()


def changed_index(data: bytes) -> bytes:
    return data.replace(b"index 1", b"index 0")


def changed_checkpoint(data: bytes) -> bytes:
    proof = Proof.parse(data)
    lines = proof.note.split(b"\n")
    lines[1] = b"9"
    return replace(proof, note=b"\n".join(lines)).encode()


def without_entry(data: bytes) -> bytes:
    return replace(Proof.parse(data), entry=None).encode()


@pytest.mark.parametrize(
    "change", [changed_path, changed_index, changed_checkpoint, without_entry, lambda d: d[:40], lambda _: b""]
)
def test_a_changed_file_does_not_hold(decision: Decision, change: object) -> None:
    data = proof_file(logged(*leaves(decision, 1, 7)), 1)
    story = ProofFile(change(data), KEYS).prove(found(decision))
    assert story.proved is Proved.FAILED


def test_a_file_of_another_record_does_not_hold(decision: Decision) -> None:
    story = ProofFile(proof_file(logged(*leaves(decision, 1, 7)), 0), KEYS).prove(found(decision))
    assert story.proved is Proved.FAILED
    assert "another digest" in story.said


def test_a_leaf_in_a_tree_of_another_partition_does_not_hold(decision: Decision) -> None:
    stray = leaf_of(Topic.BLOCK, 3, 7, finding(decision))
    story = ProofFile(proof_file(logged(stray), 0), KEYS).prove(found(decision))
    assert story.proved is Proved.FAILED
    assert "decisions.block[3]" in story.said


def test_a_key_that_nobody_trusts_proves_nothing(decision: Decision) -> None:
    strange = KeySet([Signer.generate(NAME).verifier])
    place = logged(*leaves(decision, 7))
    from_file = ProofFile(proof_file(place, 0), strange).prove(found(decision))
    assert from_file.proved is Proved.FAILED
    assert from_file.signature.startswith("does not count")
    assert told(place, found(decision, place=PLACE), strange).proved is Proved.FAILED


def test_a_log_that_went_past_the_record_contradicts_it(decision: Decision) -> None:
    story = told(logged(*leaves(decision, 1, 5, 9)), found(decision, place=PLACE))
    assert story.proved is Proved.FAILED
    assert story.said == "The audit log goes beyond decisions.block[0]@7, up to offset 9, and has no leaf of it."


def test_a_log_with_another_record_at_this_place_contradicts_it(decision: Decision) -> None:
    other = leaf_of(Topic.BLOCK, 0, 7, b"another record")
    assert told(logged(other), found(decision, place=PLACE)).proved is Proved.FAILED


def test_a_log_that_is_behind_proves_nothing_yet(decision: Decision) -> None:
    story = told(logged(*leaves(decision, 1, 5)), found(decision, place=PLACE))
    assert story.proved is Proved.ABSENT
    assert "not come to decisions.block[0]@7 yet" in story.said


def test_a_noted_gap_is_said(decision: Decision) -> None:
    story = told(logged(*leaves(decision, 1), gap_leaf(Topic.BLOCK, 0, 2, 9)), found(decision, place=PLACE))
    assert story.proved is Proved.ABSENT
    assert "removed the records 2 to 8" in story.said


def test_a_partition_without_a_tree_is_said(decision: Decision) -> None:
    story = told(logged(*leaves(decision, 7)), found(decision, place=Place(Topic.BLOCK, 1, 7)))
    assert story.proved is Proved.ABSENT
    assert "no checkpoint yet" in story.said


def test_a_record_without_a_place_needs_a_file(decision: Decision) -> None:
    story = told(logged(*leaves(decision, 7)), found(decision))
    assert story.proved is Proved.ABSENT
    assert "--proof" in story.said


def test_a_log_that_is_away_is_said(decision: Decision, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: LogReader) -> None:
        raise LogUnavailable("no route")

    place = logged(*leaves(decision, 7))
    monkeypatch.setattr(LogReader, "checkpoint", away)
    story = told(place, found(decision, place=PLACE))
    assert story.proved is Proved.ABSENT
    assert "no route" in story.said


def test_an_erased_record_is_still_proved() -> None:
    case = Case()
    decision = case.blocked()
    archive = Archive(case.store, case.store.objects)
    pointer = archive.put(decision, finding(decision), Topic.BLOCK, 0, 7)
    assert case.store.keys is not None
    case.store.keys.destroy(pointer.tenant, pointer.record_sha256)
    records = ArchiveSource(archive, "the store").find(decision.decision_uid)
    assert records is not None
    assert records.events == ()
    assert told(logged(*leaves(decision, 7)), records).proved is Proved.VERIFIED
