"""Where the log of a deployment lies and which keys it has, from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import LogCorrupt, LogUnavailable
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage, open_log_storage
from pipeline.settings import SettingsInvalid
from schemas.topics import AUDITED_TOPICS, Topic
from workers.audit.settings import AuditSettings
from workers.settings import Settings

_EMPTY_IN_A_ROW = 32


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A log's storage, and the settings that name it and its keys."""

    storage: LogStorage
    settings: AuditSettings

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises SettingsInvalid when the URL cannot be used."""
        audit = settings.audit
        options = audit.options if audit.url is not None else settings.store.options
        try:
            return cls(open_log_storage(audit.log_url(settings.store.url), options), audit)
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
        """The storage of the tree `topic/partition`."""
        return self.storage.under(name)

    def reader(self, name: str, keys: KeySet) -> LogReader:
        """Of the tree `topic/partition`."""
        return LogReader(self.tree(name), self.origin(name), keys)

    def trees(self, topics: Iterable[Topic] = AUDITED_TOPICS) -> list[str]:
        """`topic/partition` of every tree that has a checkpoint; ends where 32 partitions in a row have none.

        Raises:
            LogUnavailable: see LogStorage.
        """
        found = []
        for topic in topics:
            partition, empty = 0, 0
            while empty < _EMPTY_IN_A_ROW:
                name = f"{topic}/{partition}"
                if self.tree(name).read_checkpoint() is None:
                    empty += 1
                else:
                    empty = 0
                    found.append(name)
                partition += 1
        return found


class Writer:
    """Opens the writers of single trees."""

    def __init__(self, place: LogPlace, hook: Callable[[str], None]) -> None:
        """Raises SettingsInvalid or KeyFileInvalid when the keys cannot be used."""
        self._place = place
        self._signer = place.signer()
        self._keys = place.keys()
        self._hook = hook

    def __call__(self, name: str) -> AuditLog:
        """Raises as `AuditLog.open`; LogCorrupt names the tree and, where it is known, the first bad index."""
        origin = self._place.origin(name)
        try:
            return AuditLog.open(self._place.tree(name), origin, self._signer, self._keys, hook=self._hook)
        except LogCorrupt as error:
            raise named(error, origin) from error


def named(error: LogCorrupt, origin: str) -> LogCorrupt:
    """The error with its tree and its first bad index in the text."""
    where = origin if error.index is None else f"{origin}, first bad index {error.index}"
    return LogCorrupt(f"{where}: {error}", error.index)
