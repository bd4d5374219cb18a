"""The learning loop's objects: labelled samples, candidates, artefacts and the history of what was published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from pipeline.detection.spectral.reference import SpectralReference, SpectralReferenceError
from pipeline.evidence.small_objects import parse_object
from pipeline.media.errors import ContentCorrupt, ContentMissing
from pipeline.media.objects import Objects
from schemas.base import Part
from schemas.reference import ReferenceArtefact, ReferencePointer
from schemas.wire import encode
from workers.adaptation.records import Candidate, LabelledSample, Refusal

ROOT = "references"
_ARTEFACTS = f"{ROOT}/artefacts/"
_CANDIDATES = f"{ROOT}/candidates/"
_HISTORY = f"{ROOT}/history/"
_LABELLED = f"{ROOT}/labelled/"
_REFUSED = f"{ROOT}/refused/"

P = TypeVar("P", bound=Part)


class ReferenceStore:
    """Put-if-absent; safe for any number of processes. All methods raise StoreUnavailable; readers ContentCorrupt."""

    def __init__(self, objects: Objects) -> None:
        """Beside the evidence, usually `ContentStore.objects`."""
        self._objects = objects

    # -- artefacts --

    def put_artefact(self, reference: SpectralReference) -> ReferenceArtefact:
        """Keep a reference under the digest of its bytes."""
        with TemporaryDirectory(prefix="mediasieve-reference-") as directory:
            path = Path(directory) / "reference.npz"
            reference.save(path)
            data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"{_ARTEFACTS}{sha256}.npz"
        if not self._objects.create(key, data) and self._objects.read(key) != data:
            self._objects.replace(key, data)  # a power cut left half of it
        self._objects.sync(key)
        return ReferenceArtefact(
            version=reference.content_hash,
            sha256=sha256,
            uri=self._artefact_uri(sha256),
            families=tuple(sorted(reference.families)),
        )

    def fetch_artefact(self, artefact: ReferenceArtefact, directory: Path) -> Path:
        """A file of that directory with the artefact's bytes, once they are proved to be the reference it names.

        Raises:
            ContentMissing, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`. Also ContentCorrupt for a
                URI of another store: nothing is fetched from a place that a record chooses.
        """
        expected = self._artefact_uri(artefact.sha256)
        if artefact.uri != expected:
            raise ContentCorrupt(f"reference {artefact.version[:12]} lies at {artefact.uri}, expected {expected}")
        path = directory / f"{artefact.version}.npz"
        if path.exists():
            return path
        data = self._objects.read(f"{_ARTEFACTS}{artefact.sha256}.npz")
        if hashlib.sha256(data).hexdigest() != artefact.sha256:
            raise ContentCorrupt(f"{expected} does not have the digest in its name")
        staged = path.with_suffix(".staged")
        staged.write_bytes(data)
        self._check(staged, artefact)
        staged.replace(path)
        return path

    def load_artefact(self, artefact: ReferenceArtefact) -> SpectralReference:
        """Read and check it. Raises as `fetch_artefact`."""
        with TemporaryDirectory(prefix="mediasieve-reference-") as directory:
            return SpectralReference.load(self.fetch_artefact(artefact, Path(directory)))

    def _check(self, path: Path, artefact: ReferenceArtefact) -> None:
        try:
            found = SpectralReference.load(path).content_hash
        except SpectralReferenceError as error:
            raise ContentCorrupt(f"{artefact.uri}: {error}") from error
        if found != artefact.version:
            raise ContentCorrupt(f"{artefact.uri} holds the reference {found[:12]}, not {artefact.version[:12]}")

    def _artefact_uri(self, sha256: str) -> str:
        return f"{self._objects.base}/{_ARTEFACTS}{sha256}.npz"

    # -- labelled samples --

    def put_sample(self, sample: LabelledSample) -> bool:
        """False when the review is there already."""
        return self._create(f"{_LABELLED}{sample.review_id}.json", sample)

    def has_sample(self, review_id: object) -> bool:
        """Whether the review is there."""
        return self._exists(f"{_LABELLED}{review_id}.json")

    def sample_keys(self) -> Iterator[str]:
        """Names of all labelled samples, for `sample`, in no order."""
        return (found.key for found in self._objects.list(_LABELLED))

    def sample(self, key: str) -> LabelledSample:
        """One of `sample_keys`. Raises ContentMissing."""
        return parse_object(LabelledSample, self._objects.read(key), key)

    def samples(self) -> Iterator[LabelledSample]:
        """All of them, in no order."""
        return map(self.sample, self.sample_keys())

    # -- candidates --

    def put_candidate(self, candidate: Candidate) -> bool:
        """False when one of that version is there already."""
        return self._create(f"{_CANDIDATES}{candidate.base}/{candidate.version}.json", candidate)

    def candidates(self, base: str) -> list[Candidate]:
        """Oldest first."""
        return sorted(self._all(Candidate, f"{_CANDIDATES}{base}/"), key=lambda c: (c.built_at, c.version))

    def put_refusal(self, refusal: Refusal) -> bool:
        """False when that sample set was refused before."""
        return self._create(self._refusal_key(refusal.base, refusal.family, refusal.sample_set), refusal)

    def is_refused(self, base: str, family: str, sample_set: str) -> bool:
        """Whether that sample set was refused before."""
        return self._exists(self._refusal_key(base, family, sample_set))

    def refusals(self, base: str) -> list[Refusal]:
        """Oldest first."""
        return sorted(self._all(Refusal, f"{_REFUSED}{base}/"), key=lambda r: r.refused_at)

    @staticmethod
    def _refusal_key(base: str, family: str, sample_set: str) -> str:
        return f"{_REFUSED}{base}/{family}/{sample_set}.json"

    # -- history --

    def append(self, pointer: ReferencePointer) -> bool:
        """Make it the next of its base, safe from a power cut; False when another has that sequence."""
        key = self._history_key(pointer.base, pointer.sequence)
        created = self._objects.create(key, encode(pointer))
        self._objects.sync(key)
        return created

    def sequences(self, base: str) -> list[int]:
        """Numbers under which pointers of a base lie, ascending. Raises ContentCorrupt for another object there."""
        prefix = f"{_HISTORY}{base}/"
        return sorted(_number(found.key, prefix) for found in self._objects.list(prefix))

    def pointer(self, base: str, sequence: int) -> bytes:
        """One as it was signed; who reads it checks the signature. Raises ContentMissing."""
        return self._objects.read(self._history_key(base, sequence))

    @staticmethod
    def _history_key(base: str, sequence: int) -> str:
        return f"{_HISTORY}{base}/{sequence:010d}.json"

    # -- objects --

    def _create(self, key: str, value: Part) -> bool:
        created = self._objects.create(key, value.model_dump_json().encode())
        self._objects.sync(key)
        return created

    def _exists(self, key: str) -> bool:
        try:
            self._objects.read_start(key, 0)
        except ContentMissing:
            return False
        return True

    def _all(self, model: type[P], prefix: str) -> Iterator[P]:
        for found in self._objects.list(prefix):
            yield parse_object(model, self._objects.read(found.key), found.key)


def _number(key: str, prefix: str) -> int:
    name = key.removeprefix(prefix).removesuffix(".json")
    if not (name.isascii() and name.isdigit()):
        raise ContentCorrupt(f"{key}: expected {prefix}NUMBER.json; remove that object")
    return int(name)
