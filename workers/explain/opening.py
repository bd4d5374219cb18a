"""The settings of a fleet become the places where `mediasieve explain` looks."""

from __future__ import annotations

from pathlib import Path

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.policy import Policy
from pipeline.evidence.archive import Archive
from pipeline.evidence.log.key_set import KeySet
from pipeline.media.content_store import ContentStore, open_store
from pipeline.media.errors import StoreUnavailable
from pipeline.media.master_keys import MasterKeyError
from pipeline.settings import SettingsInvalid
from workers.audit.log import LogPlace
from workers.explain.archived import ArchiveSource
from workers.explain.evidence import EvidenceReader
from workers.explain.proof import LogProver, NoProver, ProofFile, Prover
from workers.settings import Settings


def reader_of(settings: Settings) -> tuple[EvidenceReader, ArchiveSource | None]:
    """The evidence store and the archive in it; a store that cannot be opened is said in the story, not raised."""
    try:
        store = open_store(settings.store)
    except (StoreUnavailable, MasterKeyError, ValueError) as error:
        return EvidenceReader(None, f"the store cannot be opened: {error}"), None
    return EvidenceReader(store), archive_in(store)


def archive_in(store: ContentStore) -> ArchiveSource:
    """The archive that the audit worker fills."""
    return ArchiveSource(Archive(store, store.objects), store.objects.base)


def prover_of(settings: Settings, proof: Path | None, key: Path | None) -> Prover:
    """A proof file that was given, else the log of the settings.

    Raises:
        OSError: the proof file cannot be read.
        KeyFileInvalid: the key file cannot be used, with its name.
    """
    path = key or settings.audit.public_keys
    keys = KeySet.load(path) if path is not None else None
    if proof is not None:
        return ProofFile(proof.read_bytes(), keys)
    if keys is None:
        return NoProver("No proof was asked for: give --proof FILE, or the log's public keys with --key.")
    try:
        place = LogPlace.of(settings)
    except SettingsInvalid as error:
        return NoProver(f"The audit log cannot be opened: {error}.")
    return LogProver(place, keys)


def policy_of(settings: Settings) -> Policy | None:
    """The policy of the installed bundle; None when there is no bundle that can be used."""
    try:
        return Bundle.load(settings.bundle).policy
    except BundleError:
        return None
