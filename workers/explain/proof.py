"""What the audit log says of a decision's record: from a proof file, or from the log itself."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Protocol

from pipeline.evidence.log.checkpoint import Checkpoint
from pipeline.evidence.log.errors import LogError, LogUnavailable, NotInLog
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf, tree_prefix
from pipeline.evidence.log.note import parse_note
from pipeline.evidence.log.proof import Proof, make_proof, verify_proof
from workers.audit.log import LogPlace
from workers.audit.search import find_by_place
from workers.explain.events import Place
from workers.explain.sources import Found
from workers.explain.story import ProofStory, Proved

_RECOPIED = "a record that was formatted anew, in an editor for instance, has another digest too"


class Prover(Protocol):
    """One way to a proof."""

    def prove(self, found: Found) -> ProofStory:
        """Of the machine's verdict. Never raises: what goes wrong is in the story."""


@dataclass(frozen=True, slots=True)
class NoProver:
    """There is no way to a proof, and why."""

    why: str

    def prove(self, found: Found) -> ProofStory:
        """See Prover."""
        return ProofStory(proved=Proved.ABSENT, said=self.why)


@dataclass(frozen=True, slots=True)
class ProofFile:
    """A file that `mediasieve audit prove` wrote. `keys` None: its signature is not checked, and that is said."""

    data: bytes
    keys: KeySet | None

    def prove(self, found: Found) -> ProofStory:
        """See Prover."""
        records = {event.sha256 for event in found.events} | {s.pointer.record_sha256 for s in found.sealed}
        return story_of(self.data, self.keys, records)


@dataclass(frozen=True, slots=True)
class LogProver:
    """Makes the proof from the log, and checks it as one from a file."""

    log: LogPlace
    keys: KeySet

    def prove(self, found: Found) -> ProofStory:
        """See Prover."""
        target = _target(found)
        if target is None:
            said = "Where the record lay in Kafka is not known: give --proof, or look in the archive or on the topics."
            return ProofStory(proved=Proved.ABSENT, said=said)
        place, sha256 = target
        try:
            return self._from_log(place, sha256)
        except NotInLog as error:
            return ProofStory(proved=Proved.ABSENT, said=f"The audit log has no leaf of it: {error}.")
        except LogUnavailable as error:
            return ProofStory(proved=Proved.ABSENT, said=f"The audit log cannot be read now: {error}.")
        except LogError as error:
            return ProofStory(proved=Proved.FAILED, said=f"The audit log does not hold: {error}.")

    def _from_log(self, place: Place, sha256: str) -> ProofStory:
        found = find_by_place(self.log, self.keys, place.topic, place.partition, place.offset)
        if found is None:
            return self._not_there(place)
        if found.leaf.gap_from is not None:
            return _gap(place, found.leaf)
        return story_of(make_proof(found.reader, found.index), self.keys, {sha256})

    def _not_there(self, place: Place) -> ProofStory:
        """A log that has not come so far contradicts nothing; one that went past the record does."""
        reader = self.log.reader(tree_prefix(place.topic, place.partition), self.keys)
        size = reader.checkpoint().size
        last = Leaf.parse(reader.entry(size - 1)).offset if size else -1
        if last < place.offset:
            said = f"The audit log has not come to {place} yet: its last leaf is of offset {last}."
            return ProofStory(proved=Proved.ABSENT, said=said, tree=reader.origin)
        said = f"The audit log goes beyond {place}, up to offset {last}, and has no leaf of it."
        return ProofStory(proved=Proved.FAILED, said=said, tree=reader.origin)


def story_of(data: bytes, keys: KeySet | None, records: set[str]) -> ProofStory:
    """Check a proof file against the digests of the records that it may be of."""
    try:
        proof = Proof.parse(data)
        checkpoint = Checkpoint.parse(parse_note(proof.note).text)
        leaf = Leaf.parse(proof.entry or b"")
    except LogError as error:
        return ProofStory(proved=Proved.FAILED, said=f"The proof cannot be read: {error}.")
    shown = ProofStory(
        proved=Proved.ABSENT,
        said="The proof was not checked: give the log's public keys with --key.",
        tree=checkpoint.origin,
        leaf_index=proof.index,
        tree_size=checkpoint.size,
        root=base64.b64encode(checkpoint.root).decode(),
        signature="not checked: no public keys were given",
        record_sha256=leaf.record_sha256,
    )
    if leaf.record_sha256 not in records:
        said = f"The proof is of a record with another digest, {leaf.record_sha256}; {_RECOPIED}."
        return _with(shown, Proved.FAILED, said)
    if not checkpoint.origin.endswith(f"/{tree_prefix(leaf.topic, leaf.partition)}"):
        said = f"The leaf is of {leaf.topic.value}[{leaf.partition}], which is not the tree's partition."
        return _with(shown, Proved.FAILED, said)
    return shown if keys is None else _checked(shown, data, keys, leaf)


def _checked(shown: ProofStory, data: bytes, keys: KeySet, leaf: Leaf) -> ProofStory:
    try:
        verify_proof(data, None, keys)
    except LogError as error:
        return _with(shown, Proved.FAILED, f"The proof does not hold: {error}.", f"does not count: {error}")
    lines = parse_note(Proof.parse(data).note).signatures
    names = [f"{line.name}+{line.key_id.hex()}" for line in lines if keys.find(line.name, line.key_id)]
    place = Place(leaf.topic, leaf.partition, leaf.offset)
    said = f"The record at {place} is in the audit log, under a checkpoint that a trusted key has signed."
    return _with(shown, Proved.VERIFIED, said, f"verified with {', '.join(names)}")


def _with(shown: ProofStory, proved: Proved, said: str, signature: str | None = None) -> ProofStory:
    changed = {"proved": proved, "said": said}
    return shown.model_copy(update=changed if signature is None else changed | {"signature": signature})


def _target(found: Found) -> tuple[Place, str] | None:
    """Place and digest of the machine's verdict: of a record that was erased too, its leaf stays."""
    machine = found.machine
    if machine is not None:
        return None if machine.place is None else (machine.place, machine.sha256)
    sealed = found.sealed[0]
    return sealed.place, sealed.pointer.record_sha256


def _gap(place: Place, leaf: Leaf) -> ProofStory:
    said = (
        f"The audit log has no leaf of {place}, but one which says that Kafka had removed the records "
        f"{leaf.gap_from} to {leaf.offset} before they were logged."
    )
    return ProofStory(proved=Proved.ABSENT, said=said)
