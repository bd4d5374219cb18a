"""What a publication adds to the reference that decides, and what it takes away, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid5

from schemas.reference import ReferenceArtefact, ReferencePointer
from schemas.review import ReferenceUpdate, UpdateAction
from workers.adaptation.records import Candidate

_NAMES = UUID("2f4b5e0c-8a58-5d0e-9f0a-6f2f6a1f7c11")
_NO_STRATUM = "unknown"
"""Of an image that the spectral stage never saw."""


def updates_of(
    candidates: Sequence[Candidate], before: ReferenceArtefact | None, pointer: ReferencePointer
) -> list[ReferenceUpdate]:
    """Revocations first; the same publication gives the same update ids each time."""
    known = {candidate.version: candidate for candidate in candidates}
    old, new = _lineage(known, before), _lineage(known, pointer.active)
    version = pointer.active.version if pointer.active is not None else pointer.base
    gone = [old[v] for v in sorted(old.keys() - new.keys())]
    come = [new[v] for v in sorted(new.keys() - old.keys())]
    return [
        *(update for candidate in gone for update in _each(candidate, UpdateAction.REVOKE, version, pointer)),
        *(update for candidate in come for update in _each(candidate, UpdateAction.ADD, version, pointer)),
    ]


def _lineage(known: Mapping[str, Candidate], artefact: ReferenceArtefact | None) -> dict[str, Candidate]:
    """The candidates that a reference was made by, itself and its ancestors."""
    found: dict[str, Candidate] = {}
    version = artefact.version if artefact is not None else ""
    while version in known and version not in found:
        found[version] = known[version]
        version = known[version].parent
    return found


def _each(candidate: Candidate, action: UpdateAction, version: str, pointer: ReferencePointer) -> list[ReferenceUpdate]:
    return [
        ReferenceUpdate(
            update_id=uuid5(_NAMES, f"{pointer.base}/{pointer.sequence}/{action}/{sample.review_id}"),
            action=action,
            content_sha256=sample.content_sha256,
            label=sample.label,
            family=candidate.family,
            stratum=sample.stratum or _NO_STRATUM,
            bundle_version=candidate.bundle_version,
            review_id=sample.review_id,
            reference=version,
            updated_at=pointer.published_at,
        )
        for sample in candidate.samples
    ]
