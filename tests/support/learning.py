"""Reviewed images without pixels: features drawn at random, stores in memory, a signed history."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import UUID, uuid5

import numpy as np

from pipeline.detection.spectral import features, strata
from pipeline.detection.spectral.fitting import fit_stratum, parts_of
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.signer import Signer
from pipeline.media.content_store import ContentStore
from pipeline.training.spectral_copies import columns
from schemas.decision import Outcome
from schemas.reference import ReferencePointer
from schemas.review import Label, ReferenceUpdate
from schemas.types import StageName
from workers.adaptation.candidate import Builder, Current
from workers.adaptation.measure import Measured, Unmeasurable
from workers.adaptation.publication import Publisher
from workers.adaptation.records import LabelledSample
from workers.adaptation.store import ReferenceStore

TENANT = "acme"
NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
PHOTOGRAPHS = 600
_NAMES = UUID(int=7)


@cache
def random_reference() -> SpectralReference:
    """Every pooled stratum, of features that are normal in photographs; the head weighs nothing."""
    rng = np.random.default_rng(100)
    drawn = rng.normal(size=(PHOTOGRAPHS, len(features.NAMES)))
    built = {}
    for codec in (*strata.CODECS, strata.ANY_LOSSY):
        values = drawn + 0.3 * rng.normal(size=drawn.shape)
        parts = parts_of(PHOTOGRAPHS, 0)
        built[f"{codec}/{strata.ANY_SIZE}"] = fit_stratum(
            values[:, columns(codec)], np.zeros((PHOTOGRAPHS, 64)), np.arange(PHOTOGRAPHS), parts
        )
    return SpectralReference(built)


def drawn_features(seed: int, shift: float) -> dict[str, list[float]]:
    """Of one image in every codec at the smallest size; `shift` 0: a photograph."""
    rng = np.random.default_rng([seed, 5])
    own = rng.normal(size=len(features.NAMES)) + shift
    size = strata.SIZES[0]
    return {f"{codec}/{size}": (own + 0.3 * rng.normal(size=own.size)).tolist() for codec in strata.CODECS}


@dataclass
class DrawnMeasures:
    """Measures what it was told of, by the bytes."""

    shifts: dict[bytes, float] = field(default_factory=dict)
    pictures: dict[bytes, int] = field(default_factory=dict)

    def measure(self, data: bytes) -> Measured:
        if data not in self.shifts:
            raise Unmeasurable("the image says nothing")
        seed = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
        return Measured(drawn_features(seed, self.shifts[data]), self.pictures.get(data, 0))


class Board:
    """Remembers what is announced."""

    def __init__(self) -> None:
        self.pointers: list[ReferencePointer] = []
        self.updates: list[ReferenceUpdate] = []

    def announce(self, pointer: ReferencePointer, updates: Sequence[ReferenceUpdate]) -> None:
        self.updates += updates
        self.pointers.append(pointer)


class Site:
    """Stores in memory, one base, one key."""

    def __init__(self) -> None:
        self.content = ContentStore("memory://")
        self.store = ReferenceStore(self.content.objects)
        self.measures = DrawnMeasures()
        self.signer = Signer.generate("tests/references")
        self.keys = KeySet([self.signer.verifier])
        self.board = Board()
        self.now = NOW

    @property
    def publisher(self) -> Publisher:
        return Publisher(self.base, self.store, self.signer, self.keys, self.board, self.tick)

    @property
    def builder(self) -> Builder:
        return Builder(self.store, self.content, self.measures, self.tick)

    @property
    def base(self) -> str:
        return random_reference().content_hash

    def current(self) -> Current:
        head = self.publisher.head()
        if head is None or head.active is None:
            return Current(self.base, random_reference(), "b1")
        return Current(self.base, self.store.load_artefact(head.active), "b1")

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def review(
        self,
        name: str,
        label: Label = Label.GENERATED,
        *,
        truth: float | None = None,
        family: str | None = "new",
        reviewer: str = "r-1",
        put: bool = True,
    ) -> LabelledSample:
        """One review of an image; `truth` is how far it really lies from photographs, by default as labelled."""
        data = name.encode()
        shift = 0.5 if label is Label.GENERATED else 0.0
        self.measures.shifts.setdefault(data, shift if truth is None else truth)
        sha256 = hashlib.sha256(data).hexdigest()
        self.content.put(TENANT, sha256, data)
        sample = labelled_sample(sha256, label, family if label is Label.GENERATED else None, reviewer, self.tick())
        if put:
            self.store.put_sample(sample)
        return sample


def labelled_sample(
    sha256: str, label: Label = Label.GENERATED, family: str | None = "new", reviewer: str = "r-1", at: datetime = NOW
) -> LabelledSample:
    """A review of an escalated image."""
    return LabelledSample(
        review_id=uuid5(_NAMES, f"{sha256}{reviewer}{at}"),
        decision_uid=uuid5(_NAMES, sha256),
        tenant=TENANT,
        content_sha256=sha256,
        label=label,
        family=family,
        reviewer=reviewer,
        reviewed_at=at,
        outcome=Outcome.ESCALATE,
        stage_exited=StageName.MLLM,
        source="camera",
        stratum="lossless/128_383",
        bundle_version="b1",
        policy_version="p1",
        sampling_probability=1.0,
    )
