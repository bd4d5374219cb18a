"""Where the log of a deployment lies and which keys it has, from the settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.checkpoint import Checkpoint, decimal, open_checkpoint
from pipeline.evidence.log.errors import LogCorrupt, LogUnavailable
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage, has_tiles, open_log_storage
from pipeline.settings import SettingsInvalid
from schemas.topics import AUDITED_TOPICS, Topic
from workers.audit.errors import KeptInvalid
from workers.audit.settings import AuditSettings
from workers.settings import Settings


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A log's storage, and the settings that name it and its keys."""

    storage: LogStorage
    settings: AuditSettings
    url: str = "memory"
    """Of the storage, for messages."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises SettingsInvalid when the URL cannot be used."""
        audit = settings.audit
        options = audit.options if audit.url is not None else settings.store.options
        try:
            url = audit.log_url(settings.store.url)
            return cls(open_log_storage(url, options), audit, url)
        except (ValueError, LogUnavailable) as error:
            raise SettingsInvalid(f"MEDIASIEVE_AUDIT__URL (in the file: audit.url): {error}") from error

    def keys(self, path: Path | None = None) -> KeySet:
        """The public keys of the settings, or of the file given instead.

        Raises:
            SettingsInvalid: no file is set.
            KeyFileInvalid: it cannot be used.
        """
        path = path or self.settings.public_keys
        if path is None:
            raise SettingsInvalid(
                "MEDIASIEVE_AUDIT__PUBLIC_KEYS (in the file: audit.public_keys): name the file of the log's public "
                "keys; `mediasieve audit keygen` makes one"
            )
        return KeySet.load(path)

    def signer(self) -> Signer:
        """The key that signs. Raises as `keys` does."""
        path = self.settings.private_key
        if path is None:
            raise SettingsInvalid(
                "MEDIASIEVE_AUDIT__PRIVATE_KEY (in the file: audit.private_key): name the file of the key that signs "
                "the log; `mediasieve audit keygen` makes one"
            )
        return Signer.load(self.settings.log_name, path)

    def origin(self, name: str) -> str:
        """Of the tree `topic/partition`."""
        return f"{self.settings.log_name}/{name}"

    def tree(self, name: str) -> LogStorage:
        """The storage of the tree `topic/partition`, under its origin, so that logs of two names share nothing."""
        return self.storage.under(self.origin(name))

    def reader(self, name: str, keys: KeySet) -> LogReader:
        """Of the tree `topic/partition`."""
        return LogReader(self.tree(name), self.origin(name), keys)

    def trees(self, topics: Iterable[Topic] = AUDITED_TOPICS) -> list[str]:
        """`topic/partition` of every tree that has a checkpoint, or lost it: as the storage lists them.

        Raises:
            LogUnavailable: see LogStorage.
        """
        found = []
        for topic in topics:
            numbers = [int(name) for name in self.tree(topic.value).folders() if decimal(name) is not None]
            names = [f"{topic}/{number}" for number in sorted(numbers)]
            found += [name for name in names if _begun(self.tree(name))]
        return found


def _begun(tree: LogStorage) -> bool:
    return tree.read_checkpoint() is not None or has_tiles(tree)


def kept_checkpoints(paths: Iterable[Path], keys: KeySet, log_name: str) -> dict[str, list[Checkpoint]]:
    """Checkpoints that somebody kept, by origin: files, and what lies as `*.checkpoint` in folders.

    Raises:
        KeptInvalid: a folder holds none, or one is of another log.
        Untrusted: one is not signed by a key that counts.
        OSError: one cannot be read.
    """
    found: dict[str, list[Checkpoint]] = defaultdict(list)
    for path in paths:
        files = sorted(path.glob("*.checkpoint")) if path.is_dir() else [path]
        if not files:
            raise KeptInvalid(f"{path} holds no .checkpoint file")
        for file in files:
            checkpoint = open_checkpoint(file.read_bytes(), keys)
            if not checkpoint.origin.startswith(f"{log_name}/"):
                raise KeptInvalid(f"{file} is of {checkpoint.origin}, which is no tree of the log {log_name}")
            found[checkpoint.origin].append(checkpoint)
    return found


class Writer:
    """Opens the writers of single trees."""

    def __init__(self, place: LogPlace, hook: Callable[[str], None]) -> None:
        """Raises SettingsInvalid, KeyFileInvalid or Untrusted when keys or kept checkpoints cannot be used."""
        self._place = place
        self._signer = place.signer()
        self._hook = hook
        self._kept = self._kept_by(place.keys())

    def __call__(self, name: str) -> AuditLog:
        """Reads the public keys again, so that a writer whose key was retired is superseded and starts no tree.

        Raises as `AuditLog.open`; LogCorrupt names the tree and, where it is known, the first bad index.
        """
        origin, keys = self._place.origin(name), self._place.keys()
        kept = self._kept.get(origin, ())
        try:
            return AuditLog.open(self._place.tree(name), origin, self._signer, keys, kept=kept, hook=self._hook)
        except LogCorrupt as error:
            raise named(error, origin) from error

    def _kept_by(self, keys: KeySet) -> dict[str, list[Checkpoint]]:
        folder = self._place.settings.kept
        if folder is None:
            return {}
        try:
            return kept_checkpoints([folder], keys, self._place.settings.log_name)
        except (KeptInvalid, OSError) as error:
            raise SettingsInvalid(f"MEDIASIEVE_AUDIT__KEPT (in the file: audit.kept): {error}") from error


def named(error: LogCorrupt, origin: str) -> LogCorrupt:
    """The error with its tree and its first bad index in the text."""
    where = origin if error.index is None else f"{origin}, first bad index {error.index}"
    return LogCorrupt(f"{where}: {error}", error.index)
