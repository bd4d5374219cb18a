"""Publishing references: every change is a signed pointer, first in the history, then on the topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.signer import Signer
from pipeline.media.errors import ContentCorrupt, ContentMissing
from pipeline.streaming.kafka.client import KafkaUnavailable
from schemas.reference import PublicationAction, ReferenceArtefact, ReferencePointer
from schemas.review import ReferenceUpdate
from workers.adaptation.history import before_the_present, newest, published
from workers.adaptation.pointer import signed_pointer
from workers.adaptation.records import Candidate
from workers.adaptation.store import ReferenceStore
from workers.adaptation.updates import updates_of

BUNDLE = "bundle"
"""Names the bundle's own reference where a version is asked for."""


class PublicationRefused(Exception):
    """Nothing was published; the text says why and what to do."""


class Announcer(Protocol):
    """Writes to the topics `references` and `references.updates`."""

    def announce(self, pointer: ReferencePointer, updates: Sequence[ReferenceUpdate]) -> None:
        """Return once the brokers have all of it; `updates` first. Raises KafkaUnavailable."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """For one base. Two publishers at once are told apart by the history: one of them is refused.

    Whatever is signed was read from the store and checked first: a pointer without its file lets no worker start.
    """

    base: str
    store: ReferenceStore
    signer: Signer
    keys: KeySet
    announcer: Announcer
    now: Callable[[], datetime]

    def promote(self, candidate: Candidate, actor: str, reason: str) -> ReferencePointer:
        """Let a candidate decide from now on; whoever watched no longer does.

        Raises:
            PublicationRefused: it was built on a reference that no longer decides, or cannot be read.
            Untrusted, StoreUnavailable, KafkaUnavailable: history, store or brokers cannot be used.
        """
        self._require_parent(candidate)
        return self._publish(PublicationAction.PROMOTE, candidate.artefact, None, actor, reason)

    def shadow(self, candidate: Candidate, actor: str, reason: str) -> ReferencePointer:
        """Let a candidate watch: it scores beside the reference that decides. Raises as `promote`."""
        self._require_parent(candidate)
        head = self.head()
        active = head.active if head is not None else None
        return self._publish(PublicationAction.SHADOW, active, candidate.artefact, actor, reason)

    def rollback(self, to: str | None, actor: str, reason: str) -> ReferencePointer:
        """Let an earlier reference decide again; whoever watched no longer does.

        Args:
            to: first digits of a version that decided before or decides now, or `bundle`; None: the one before the
                present one, further back each time.
            actor: who does it.
            reason: why.

        Raises:
            PublicationRefused: there is no such version, or it cannot be read.
            Untrusted, StoreUnavailable, KafkaUnavailable: as `promote`.
        """
        return self._publish(PublicationAction.ROLLBACK, self._earlier(to), None, actor, reason)

    def announce_again(self) -> ReferencePointer:
        """Write the newest pointer to the topic once more: after a publication that ended in between.

        Raises:
            PublicationRefused: nothing was ever published.
            Untrusted, StoreUnavailable, KafkaUnavailable: as `promote`.
        """
        pointers = self.history()
        if not pointers:
            raise PublicationRefused("nothing was published for this bundle's reference yet")
        before = pointers[-2].active if len(pointers) > 1 else None
        return self._announce(pointers[-1], before)

    def head(self) -> ReferencePointer | None:
        """The newest pointer. Raises as `history`."""
        return newest(self.store, self.base, self.keys)

    def history(self) -> list[ReferencePointer]:
        """Every pointer, checked, oldest first. Raises Untrusted, ContentMissing and StoreUnavailable."""
        return published(self.store, self.base, self.keys)

    def _publish(
        self,
        action: PublicationAction,
        active: ReferenceArtefact | None,
        shadow: ReferenceArtefact | None,
        actor: str,
        reason: str,
    ) -> ReferencePointer:
        for artefact in filter(None, (active, shadow)):
            self._require_readable(artefact)
        head = self.head()
        fields: dict[str, Any] = {
            "base": self.base,
            "sequence": head.sequence + 1 if head is not None else 1,
            "action": action,
            "active": active,
            "shadow": shadow,
            "actor": actor,
            "reason": reason,
            "published_at": self.now(),
        }
        pointer = signed_pointer(self.signer, **fields)
        if not self.store.append(pointer):
            raise PublicationRefused(
                f"somebody else published number {pointer.sequence} at this moment; see `mediasieve references list`"
            )
        return self._announce(pointer, head.active if head is not None else None)

    def _announce(self, pointer: ReferencePointer, before: ReferenceArtefact | None) -> ReferencePointer:
        """The topic ends with the newest pointer, also when another publisher was faster with a later one."""
        try:
            self.announcer.announce(pointer, self._updates(before, pointer))
            last, head = pointer, self.head()
            while head is not None and head.sequence > last.sequence:
                self.announcer.announce(head, ())
                last, head = head, self.head()
        except KafkaUnavailable as error:
            raise KafkaUnavailable(
                f"number {pointer.sequence} is in the history but perhaps not on the topic, so that only workers that "
                f"start decide by it: run `mediasieve references announce` ({error})"
            ) from error
        return pointer

    def _require_readable(self, artefact: ReferenceArtefact) -> None:
        try:
            self.store.load_artefact(artefact)
        except (ContentMissing, ContentCorrupt) as error:
            raise PublicationRefused(
                f"{artefact.version[:12]} cannot be read, so no worker could decide by it: {error}; build it again, or "
                "roll back to another version"
            ) from error

    def _require_parent(self, candidate: Candidate) -> None:
        head = self.head()
        deciding = head.active.version if head is not None and head.active is not None else self.base
        if candidate.parent != deciding:
            raise PublicationRefused(
                f"{candidate.version[:12]} was built on {candidate.parent[:12]}, but {deciding[:12]} decides now: "
                "build it again, or use `rollback` for one that has decided before"
            )

    def _earlier(self, to: str | None) -> ReferenceArtefact | None:
        if to == BUNDLE:
            return None
        pointers = self.history()
        if to is None:
            before = before_the_present(pointers)
            if not before:
                raise PublicationRefused("the bundle's own reference decides and nothing decided before it")
            return before[-1]
        known = {p.active.version: p.active for p in pointers if p.active is not None}
        found = [artefact for version, artefact in known.items() if version.startswith(to)]
        if len(found) != 1:
            there = ", ".join(sorted(version[:12] for version in known)) or "none"
            raise PublicationRefused(f"{to}: {len(found)} such versions decided before; there are: {there}, {BUNDLE}")
        return found[0]

    def _updates(self, before: ReferenceArtefact | None, pointer: ReferencePointer) -> list[ReferenceUpdate]:
        return updates_of(self.store.candidates(self.base), before, pointer)
