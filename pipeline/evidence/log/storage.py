"""Where the objects of a log lie: immutable ones that are put once, and one checkpoint that is compared and swapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pipeline.evidence.log.tiles import TILES


@dataclass(frozen=True, slots=True)
class Token:
    """Which version of the checkpoint was read; nobody but its storage looks inside."""

    e_tag: str | None
    version: str | None = None


class LogStorage(Protocol):
    """Objects by relative path. Safe for several processes; one storage object is for one thread."""

    def read(self, path: str) -> bytes:
        """The whole object.

        Raises:
            NotInLog: there is none.
            LogUnavailable: it cannot be read now.
        """

    def create(self, path: str, data: bytes) -> None:
        """Put an immutable object if it is absent; the same bytes already there are fine.

        It is whole at once, and survives a power cut from the next `swap_checkpoint` on, whatever its own fate.

        Raises:
            LogCorrupt: other bytes are already there; they stay as they are.
            LogUnavailable: not put.
        """

    def discard(self, path: str) -> None:
        """Remove an unfinished tile or bundle that a full one has replaced; that it is gone already is fine.

        Raises:
            LogUnavailable: it may still be there, which harms nobody.
        """

    def read_checkpoint(self) -> tuple[bytes, Token] | None:
        """The newest checkpoint and its token for `swap_checkpoint`; None when there was never one.

        Raises:
            LogUnavailable: it cannot be read now.
        """

    def swap_checkpoint(self, new: bytes, token: Token | None) -> Token:
        """Replace the checkpoint, if it still is the one of `token`; None: if there still is none. Durable on return.

        Raises:
            Superseded: it is another one, which stays.
            LogUnavailable: it may or may not have been replaced; read it.
        """

    def folders(self) -> list[str]:
        """Names of the sub-directories that hold objects, directly or below them; empty when there is nothing at all.

        Raises:
            LogUnavailable: they cannot be listed now.
        """

    def under(self, prefix: str) -> LogStorage:
        """The storage of the sub-directory `prefix`, such as `decisions.block/0`; shares this one's connection."""


def open_log_storage(url: str, options: Mapping[str, str] | None = None) -> LogStorage:
    """Name a storage; nothing is read or written yet.

    Args:
        url: `file:///dir`, `s3://bucket[/prefix]`, `gs://...`, `az://...` or `memory://`, which is new at each call:
            pass the object on, and use `under` for its parts.
        options: region, endpoint and the like, as obstore names them.

    Raises:
        ValueError: the URL names no known kind of storage.
    """
    from pipeline.evidence.log.directory_storage import DirectoryStorage  # noqa: PLC0415 - they need this module
    from pipeline.evidence.log.object_storage import memory_storage, open_bucket  # noqa: PLC0415 - as above

    split = urlsplit(url)
    match split.scheme:
        case "memory":
            return memory_storage(f"{split.netloc}{split.path}".strip("/"))
        case "file":
            path = unquote(split.path)
            if split.netloc not in ("", "localhost") or not path.startswith("/"):
                raise ValueError(f"log {url!r}: expected file:///absolute/directory")
            return DirectoryStorage(Path(path))
        case "s3" | "gs" | "az":
            return open_bucket(url.rstrip("/"), options or {})
        case _:
            raise ValueError(f"log {url!r}: expected file:///dir, s3://, gs://, az:// or memory://")


def has_tiles(storage: LogStorage) -> bool:
    """Whether entries or tiles lie here: then a checkpoint once covered them, or did not come to it.

    Raises:
        LogUnavailable: see `LogStorage`.
    """
    return TILES in storage.folders()


def checked_path(path: str) -> str:
    """`path`, if it stays inside its storage.

    Raises:
        ValueError: an empty, absolute or climbing path.
    """
    if not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"path {path!r} of a log: expected names separated by single slashes")
    return path
