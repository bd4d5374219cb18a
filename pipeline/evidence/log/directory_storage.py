"""A log in a local directory. Objects are linked into place whole; everything is synced before a checkpoint says so."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.evidence.log.errors import LogCorrupt, LogUnavailable, NotInLog, Superseded
from pipeline.evidence.log.storage import Token, checked_path
from pipeline.evidence.log.tiles import CHECKPOINT

_STAGING = ".staging"
_LOCK = ".lock"
_STALE_S = 3600
"""A staged file of this age belongs to a process that was killed: no write takes that long."""


class DirectoryStorage:
    """`LogStorage` on a file system with hard links, atomic rename and flock: any local one, not NFS before 4."""

    def __init__(self, root: Path) -> None:
        """Name a directory; the first write makes it, so that a reader needs no right to write."""
        self._root = root.absolute()
        self._unsynced: set[Path] = set()
        self._prepared = False

    def read(self, path: str) -> bytes:
        """See `LogStorage`."""
        target = self._root / checked_path(path)
        with _outage("read", target):
            try:
                return target.read_bytes()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise NotInLog(f"{target} is not in the log") from error

    def create(self, path: str, data: bytes) -> None:
        """See `LogStorage`. The file is synced here, the names of all files at the next checkpoint."""
        target = self._root / checked_path(path)
        with _outage("write", target):
            self._prepare()
            self._make(target.parent)
            self._unsynced.add(target.parent)
            with self._staged(data) as staged:
                try:
                    os.link(staged, target)
                except FileExistsError:
                    if target.read_bytes() != data:
                        raise LogCorrupt(f"{target} already holds other bytes; {different(path)}") from None

    def discard(self, path: str) -> None:
        """See `LogStorage`. The directory goes with its last file."""
        target = self._root / checked_path(path)
        with _outage("remove", target):
            target.unlink(missing_ok=True)
            with suppress(OSError):  # not empty, or never made
                target.parent.rmdir()
                self._unsynced.discard(target.parent)

    def read_checkpoint(self) -> tuple[bytes, Token] | None:
        """See `LogStorage`."""
        try:
            data = self.read(CHECKPOINT)
        except NotInLog:
            return None
        return data, _token(data)

    def swap_checkpoint(self, new: bytes, token: Token | None) -> Token:
        """See `LogStorage`. The lock is held from the compare to the rename; who lost writes no file at all."""
        target = self._root / CHECKPOINT
        with _outage("replace", target):
            self._prepare()
            self._sync()
            with self._locked():
                found = self.read_checkpoint()
                if (found and found[1]) != token:
                    raise Superseded(f"{target} is no longer the checkpoint that this writer wrote or read last")
                with self._staged(new) as staged:
                    staged.rename(target)
            sync_directory(self._root)
        return _token(new)

    def folders(self) -> list[str]:
        """See `LogStorage`."""
        with _outage("list", self._root):
            try:
                return sorted(path.name for path in self._root.iterdir() if path.is_dir() and path.name != _STAGING)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def under(self, prefix: str) -> DirectoryStorage:
        """See `LogStorage`."""
        return DirectoryStorage(self._root / checked_path(prefix))

    def _prepare(self) -> None:
        if not self._prepared:
            self._make(self._root / _STAGING)
            self._sweep()
            self._prepared = True

    def _make(self, directory: Path) -> None:
        """Make a directory, and remember all whose names must reach the disk."""
        missing = directory
        while not missing.exists():
            self._unsynced.add(missing.parent)
            missing = missing.parent
        directory.mkdir(parents=True, exist_ok=True)

    def _sync(self) -> None:
        for directory in sorted(self._unsynced):
            with suppress(FileNotFoundError):  # another writer has removed what was in it
                sync_directory(directory)
        self._unsynced.clear()

    @contextmanager
    def _staged(self, data: bytes) -> Iterator[Path]:
        staged = self._root / _STAGING / uuid.uuid4().hex
        try:
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield staged
        finally:
            with suppress(FileNotFoundError):
                staged.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._root / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sweep(self) -> None:
        too_old = time.time() - _STALE_S
        for staged in (self._root / _STAGING).iterdir():
            with suppress(FileNotFoundError):
                if staged.stat().st_mtime < too_old:
                    staged.unlink()


def different(path: str) -> str:
    """What other bytes under the name of an immutable object mean, and the way out."""
    return (
        f"either the checkpoint was rolled back below what {path} belongs to, or a writer with other entries was "
        "killed before its checkpoint. Compare with a kept checkpoint; only when no checkpoint ever covered the "
        "object, stop all writers, remove it and start again"
    )


def _token(data: bytes) -> Token:
    return Token(hashlib.sha256(data).hexdigest())


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _outage(verb: str, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogUnavailable(f"cannot {verb} {target}: {error.strerror or error}") from error
