"""Every pointer that was published for a base, oldest first: what is signed and where it lies must agree."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.evidence.log.errors import Untrusted
from pipeline.evidence.log.key_set import KeySet
from schemas.reference import ReferenceArtefact, ReferencePointer
from workers.adaptation.pointer import trusted_pointer
from workers.adaptation.store import ReferenceStore


def published(store: ReferenceStore, base: str, keys: KeySet) -> list[ReferencePointer]:
    """All of them, oldest first.

    Raises:
        Untrusted: no key in use has signed one, or it lies under another number or base than its own: somebody copied
            an older one there.
        UnknownMajorVersion, ContentMissing, StoreUnavailable: one cannot be read.
    """
    return [_checked(store, base, sequence, keys) for sequence in store.sequences(base)]


def newest(store: ReferenceStore, base: str, keys: KeySet) -> ReferencePointer | None:
    """The last one alone; None where nothing was published. Raises as `published`."""
    sequences = store.sequences(base)
    return _checked(store, base, sequences[-1], keys) if sequences else None


def before_the_present(pointers: Iterable[ReferencePointer]) -> tuple[ReferenceArtefact | None, ...]:
    """What decided before what decides now, oldest first; the bundle's own is None.

    As an undo: what a rollback took away is not among it, so that a second rollback goes on backwards.
    """
    decided: list[ReferenceArtefact | None] = [None]
    for pointer in pointers:
        if pointer.active in decided:
            del decided[decided.index(pointer.active) + 1 :]
        else:
            decided.append(pointer.active)
    return tuple(decided[:-1])


def withdrawn_families(pointers: Iterable[ReferencePointer]) -> frozenset[str]:
    """Families that decided once and do not now: a person took them away."""
    ever: set[str] = set()
    now: set[str] = set()
    for pointer in pointers:
        now = set(pointer.active.families) if pointer.active is not None else set()
        ever |= now
    return frozenset(ever - now)


def _checked(store: ReferenceStore, base: str, sequence: int, keys: KeySet) -> ReferencePointer:
    pointer = trusted_pointer(store.pointer(base, sequence), keys)
    if (pointer.base, pointer.sequence) != (base, sequence):
        raise Untrusted(
            f"the history of {base[:12]} holds pointer {pointer.sequence} of {pointer.base[:12]} as number {sequence}: "
            "somebody put it there; remove that object"
        )
    return pointer
