"""Evidence as the settings describe it: store, keys, locks, archive and holds in one piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.evidence.archive import Archive
from pipeline.evidence.erasure import Eraser, ErasureJournal, Vault
from pipeline.evidence.legal_hold import LegalHolds
from pipeline.evidence.object_lock import ObjectLockMissing, keeps_old_versions, open_object_lock
from pipeline.evidence.retain import Retainer
from pipeline.evidence.retention import RetentionPolicy, RetentionPolicyError
from pipeline.media.content_store import ContentStore, open_store
from pipeline.settings import FleetSettings

_POLICY_SETTING = "MEDIASIEVE_RETENTION_POLICY (in the file: retention_policy)"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The parts that work on one store."""

    store: ContentStore
    archive: Archive
    holds: LegalHolds
    vault: Vault
    now: Callable[[], datetime]

    def eraser(self, journal: ErasureJournal) -> Eraser:
        """One that announces to `journal`."""
        return Eraser(self.archive, self.vault, self.holds, journal, self.now)


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def open_evidence(settings: FleetSettings, now: Callable[[], datetime] = utc_now) -> Evidence:
    """Open the store and what belongs to it.

    Raises:
        MasterKeyError, ObjectLockMissing: settings or packages are missing.
        ValueError: a URL names no known kind of store.
        StoreUnavailable: try again later.
    """
    store = open_store(settings.store)
    lock = open_object_lock(settings.store.url, settings.store.options)
    return Evidence(
        store=store,
        archive=Archive(store, store.objects),
        holds=LegalHolds(store.objects, now),
        vault=Vault(store.objects, store.keys, lock),
        now=now,
    )


def open_retainer(settings: FleetSettings, now: Callable[[], datetime] = utc_now) -> Retainer:
    """What the audit worker hands committed decisions to.

    Raises:
        RetentionPolicyError: the policy file is wrong, or there is none and the store could lock.
        MasterKeyError, ObjectLockMissing, ValueError, StoreUnavailable: as `open_evidence`.
    """
    evidence = open_evidence(settings, now)
    if not evidence.vault.lock.supports():
        return Retainer(evidence.archive, evidence.holds, now)
    return Retainer(evidence.archive, evidence.holds, now, evidence.vault.lock, load_policy(settings))


def load_policy(settings: FleetSettings) -> RetentionPolicy:
    """The policy file that the settings name.

    Raises:
        RetentionPolicyError: none is named, or it is wrong.
    """
    if settings.retention_policy is None:
        raise RetentionPolicyError(f"{_POLICY_SETTING} is not set: how long evidence is kept must be said in a file")
    return RetentionPolicy.load(settings.retention_policy)


def require_object_lock(settings: FleetSettings) -> None:
    """In production mode the store must lock, and the key store must not keep what is destroyed.

    The rest of what production mode needs is read off the settings: `pipeline.production`.

    Raises:
        ObjectLockMissing: naming the setting and the way out.
        StoreUnavailable: a bucket does not answer.
    """
    if not settings.production:
        return
    store = settings.store
    way_out = "or set MEDIASIEVE_PRODUCTION=false, and evidence can be deleted by whoever can write it"
    if not open_object_lock(store.url, store.options).supports():
        raise ObjectLockMissing(
            f"MEDIASIEVE_STORE__URL={store.url} has no Object Lock, which production mode needs: "
            f"name an s3:// bucket that was made with it, {way_out}"
        )
    if store.keys is not None and keeps_old_versions(store.keys.url, store.keys.options):
        raise ObjectLockMissing(
            f"MEDIASIEVE_STORE__KEYS__URL={store.keys.url} keeps old versions, so that a destroyed key could be "
            "brought back: name a bucket without versioning"
        )
