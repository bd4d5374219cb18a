"""Settings become the parts of the learning loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.evidence.archive import Archive
from pipeline.media.content_store import ContentStore, open_store
from workers.adaptation.announce import KafkaAnnouncer
from workers.adaptation.candidate import Builder, Current
from workers.adaptation.keys import load_keys
from workers.adaptation.labels import LabelSet, taught_by
from workers.adaptation.measure import Measurer
from workers.adaptation.publication import Announcer, Publisher
from workers.adaptation.samples import Measures
from workers.adaptation.store import ReferenceStore
from workers.settings import Settings


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What is there before anything is signed: bundle, stores, and the bundle's own reference."""

    settings: Settings
    content: ContentStore
    store: ReferenceStore
    bundle_version: str
    own: SpectralReference

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Raises BundleError, MasterKeyError, ValueError and StoreUnavailable, as bundle and store do."""
        bundle = Bundle.load(settings.bundle)
        if bundle.manifest.spectral is None:
            raise BundleError(f"{bundle.directory}: has no spectral reference, so there is nothing to learn for")
        content = open_store(settings.store)
        own = SpectralReference.load(bundle.path(bundle.manifest.spectral.file))
        return cls(settings, content, ReferenceStore(content.objects), bundle.version, own)

    @property
    def base(self) -> str:
        """Content hash of the bundle's own reference."""
        return self.own.content_hash

    @property
    def archive(self) -> Archive:
        """Of the decisions that were reviewed."""
        return Archive(self.content, self.content.objects)

    def labels(self) -> LabelSet:
        """What the tenants that teach have said. Raises ContentCorrupt and StoreUnavailable."""
        return LabelSet.of(taught_by(self.store.samples(), self.settings.references.tenants))

    def current(self, publisher: Publisher) -> Current:
        """The reference that decides now. Raises as `Publisher.head` and `ReferenceStore.load_artefact`."""
        head = publisher.head()
        if head is None or head.active is None:
            return Current(self.base, self.own, self.bundle_version)
        return Current(self.base, self.store.load_artefact(head.active), self.bundle_version)

    def publisher(self, announcer: Announcer | None = None) -> Publisher:
        """Signs with the key of the settings. Raises SettingsInvalid when a key is not named or cannot be used."""
        references = self.settings.references
        signer, keys = load_keys(references)
        return Publisher(
            base=self.base,
            store=self.store,
            signer=signer,
            keys=keys,
            announcer=announcer or KafkaAnnouncer(self.settings.kafka),
            now=utc_now,
        )

    def builder(
        self, measures: Measures, min_samples: int | None = None, now: Callable[[], datetime] = utc_now
    ) -> Builder:
        """`min_samples` None: as the settings say."""
        least = self.settings.references.min_samples if min_samples is None else min_samples
        return Builder(self.store, self.content, measures, now, least)

    def measurer(self) -> Measurer:
        """A new one; close it."""
        references = self.settings.references
        return Measurer(references.sample_timeout_s, references.sample_memory_bytes)
