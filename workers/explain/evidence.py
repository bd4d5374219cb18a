"""Every digest that a decision names, read back and compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.media.errors import ContentCorrupt, ContentErased, ContentMissing, StoreUnavailable
from schemas.decision import Decision, Risk
from schemas.media import EvidenceRef
from workers.explain.sources import Found
from workers.explain.story import ErasureStory, EvidenceStory, Held
from workers.explain.times import moment

ORIGINAL, PANEL, MANIFEST, RECORD = "original", "spectral_panel", "manifest", "decision_record"


class EvidenceStore(Protocol):
    """What is needed of `ContentStore`; both raise as it does."""

    def get(self, tenant: str, sha256: str) -> bytes:
        """The original bytes, verified."""

    def get_evidence(self, uri: str, sha256: str) -> bytes:
        """A piece of evidence, verified."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What the page says of one digest, and its bytes where they were read and verified."""

    story: EvidenceStory
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pieces:
    """All pieces of one decision, in the order in which the decision names them."""

    all: tuple[Piece, ...]

    def of_kind(self, kind: str) -> Piece | None:
        """The last of that kind, or None: a later stage's manifest holds all of an earlier one's."""
        return next((p for p in reversed(self.all) if p.story.kind == kind), None)

    def text_of(self, sha256: str) -> tuple[str | None, str]:
        """The text under a digest, or None, and a sentence on what became of it."""
        piece = next((p for p in self.all if p.story.sha256 == sha256), None)
        if piece is None:
            return None, "The decision does not name this digest as evidence."
        return None if piece.data is None else piece.data.decode("utf-8", "replace"), piece.story.said


@dataclass(frozen=True, slots=True)
class EvidenceReader:
    """Reads from `store`; None: there is none, and `no_store` says why."""

    store: EvidenceStore | None
    no_store: str = ""

    def pieces(self, found: Found) -> Pieces:
        """All that the machine's verdict and the later events name, and records that cannot be read."""
        read = list(self._sealed(found))
        if found.machine is not None:
            decision = found.machine.decision
            read.append(self.original(decision, found.erasures))
            named = dict.fromkeys(ref for event in found.events for ref in event.decision.evidence)
            read.extend(self.named(ref, found.erasures) for ref in named if ref.kind != ORIGINAL)
        return Pieces(tuple(read))

    def _sealed(self, found: Found) -> Iterator[Piece]:
        for sealed in found.sealed:
            pointer = sealed.pointer
            yield _piece(RECORD, pointer.record_sha256, pointer.record_uri, sealed.held, sealed.said)

    def original(self, decision: Decision, erasures: Collection[ErasureStory] = ()) -> Piece:
        """The media's own bytes. `erasures`: those known, to say of erased bytes who erased them."""
        named = next((ref for ref in decision.evidence if ref.kind == ORIGINAL), None)
        sha256 = named.sha256 if named else decision.facts.sha256 if decision.facts else None
        uri = named.uri if named else None
        if sha256 is None:
            return _piece(ORIGINAL, None, None, Held.NOT_KEPT, "The bytes were never obtained, so there is no digest.")
        if decision.risk is Risk.RELEASED:
            said = "No object was kept for a released pass: its decision is the evidence."
            return _piece(ORIGINAL, sha256, None, Held.NOT_KEPT, said)
        tenant = decision.admission.tenant
        return self._read(ORIGINAL, sha256, uri, lambda store: store.get(tenant, sha256), erasures)

    def named(self, ref: EvidenceRef, erasures: Collection[ErasureStory] = ()) -> Piece:
        """One piece that a decision names; `erasures` as in `original`."""
        return self._read(
            ref.kind, ref.sha256, ref.uri, lambda store: store.get_evidence(ref.uri, ref.sha256), erasures
        )

    def _read(
        self,
        kind: str,
        sha256: str,
        uri: str | None,
        read: Callable[[EvidenceStore], bytes],
        erasures: Collection[ErasureStory],
    ) -> Piece:
        if self.store is None:
            return _piece(kind, sha256, uri, Held.UNREADABLE, f"Not read: {self.no_store}.")
        try:
            data = read(self.store)
        except ContentMissing as error:
            return _piece(kind, sha256, uri, *_absent(sha256, error, erasures))
        except ContentCorrupt as error:
            return _piece(kind, sha256, uri, Held.DIGEST_DIFFERS, f"What lies there is not what was kept: {error}.")
        except (StoreUnavailable, ValueError) as error:
            return _piece(kind, sha256, uri, Held.UNREADABLE, f"Not read: {error}.")
        story = EvidenceStory(
            kind=kind,
            sha256=sha256,
            uri=uri,
            held=Held.VERIFIED,
            said="Read, and its digest is the one in the decision.",
            size_bytes=len(data),
        )
        return Piece(story, data)


def _piece(kind: str, sha256: str | None, uri: str | None, held: Held, said: str) -> Piece:
    return Piece(EvidenceStory(kind=kind, sha256=sha256, uri=uri, held=held, said=said))


def _absent(sha256: str, error: ContentMissing, erasures: Collection[ErasureStory]) -> tuple[Held, str]:
    """An erasure that no lock stood against leaves no object."""
    if isinstance(error, ContentErased) or any(sha256 in erasure.sha256s for erasure in erasures):
        return Held.ERASED, _erased_words(sha256, erasures)
    return Held.MISSING, f"It is not in the store: {error}."


def _erased_words(sha256: str, erasures: Collection[ErasureStory]) -> str:
    erasure = next((e for e in erasures if sha256 in e.sha256s), None)
    if erasure is None:
        return "Erased: its key was destroyed. No record of the erasure was found where this was looked up."
    detail = f": {erasure.detail}" if erasure.detail else ""
    return f"Erased on {moment(erasure.erased_at)} by {erasure.cause} ({erasure.actor}){detail}."
