"""file:// below configured directories, without following a symbolic link out of them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.media.errors import FetchDeferred, FetchRejected
from pipeline.media.transfer import Body, Transfer
from schemas.deadletter import RejectCode

_CHUNK_BYTES = 1 << 20
_HOST = "file"


class FileSource:
    """Reads regular files below `roots`."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(Path(os.path.realpath(root)) for root in roots)

    def get(self, uri: str, transfer: Transfer) -> Body:
        """The file's bytes.

        Raises:
            FetchRejected: not below a root, not a regular file, gone, or not readable.
            FetchDeferred: the file system fails.
            MediaError: MEDIA_TOO_LARGE.
        """
        transfer.host = _HOST
        root, parts = self._locate(_path_of(uri))
        try:
            descriptor = _open_below(root, parts)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                transfer.begin_body(os.fstat(descriptor).st_size)
                while chunk := file.read(_CHUNK_BYTES):
                    transfer.add(chunk)
        except OSError as error:
            raise _explain(error) from error
        return Body(transfer.data())

    def _locate(self, path: str) -> tuple[Path, tuple[str, ...]]:
        try:
            real = Path(os.path.realpath(path))
        except OSError as error:
            raise _explain(error) from error
        for root in self._roots:
            if real != root and real.is_relative_to(root):
                return root, real.relative_to(root).parts
        raise FetchRejected(RejectCode.URI_REFUSED, "the file is not below one of `file_roots`")


def _path_of(uri: str) -> str:
    split = urlsplit(uri)
    if split.netloc not in ("", "localhost"):
        raise FetchRejected(RejectCode.URI_REFUSED, "file:// takes no host but localhost")
    path = unquote(split.path)
    if split.query or split.fragment or "\0" in path or not path.startswith("/"):
        raise FetchRejected(RejectCode.URI_REFUSED, "expected file:///absolute/path, percent-encoded")
    return path


def _open_below(root: Path, parts: Sequence[str]) -> int:
    """Open without following links: `parts` were resolved before, so a link met now was slipped in since."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(part, flags, dir_fd=directory)
            os.close(directory)
            directory = below
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(parts[-1], flags, dir_fd=directory)
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FetchRejected(RejectCode.URI_REFUSED, "not a regular file")
    return descriptor


def _explain(error: OSError) -> FetchRejected | FetchDeferred:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return FetchRejected(RejectCode.SOURCE_GONE, "no such file")
        case errno.EACCES | errno.EPERM:
            return FetchRejected(RejectCode.SOURCE_FORBIDDEN, "the worker may not read the file")
        case errno.ELOOP | errno.ENAMETOOLONG | errno.ENXIO:
            return FetchRejected(RejectCode.URI_REFUSED, f"not a file to read: {error.strerror}")
        case _:
            return FetchDeferred(f"cannot read the file: {error.strerror}", _HOST)
