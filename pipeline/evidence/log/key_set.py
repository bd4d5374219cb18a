"""The public keys that are trusted for a log, with what each retired one was trusted up to.

The file that operators keep is JSON:

    {"v": 1, "keys": [
      {"vkey": "logs.example/audit+5aa3c1f0+AQ..."},
      {"vkey": "logs.example/audit+09b1d2e3+AQ...",
       "retired_at": {"logs.example/audit/decisions.block/0": {"size": 1200, "root": "<base64>"}}}
    ]}

A key without `retired_at` is in use. A retired key is trusted for the origins named, and there for trees of at most
`size` leaves; at that size the root must be `root`. Origins that are not named are refused: rotate with
`KeySet.retire`, giving the newest checkpoint of every tree.

A retired key can still sign a smaller tree that never was: nothing in a proof file says when it was signed. So a key
that was stolen, before or after it was retired, gets `"stolen": true` beside `retired_at`: then it is trusted for
exactly the trees named, which must be known to be good, and for no smaller one. Proofs under its other checkpoints must
be made again.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.evidence.log.checkpoint import Checkpoint
from pipeline.evidence.log.directory_storage import sync_directory
from pipeline.evidence.log.errors import KeyFileInvalid, Untrusted
from pipeline.evidence.log.keys import Verifier
from pipeline.evidence.log.merkle import HASH_BYTES


class RetiredAt(BaseModel):
    """The last tree of one origin that a key is trusted for; `root` is base64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    root: str


class TrustedKey(BaseModel):
    """One entry of the key file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vkey: str
    retired_at: dict[str, RetiredAt] | None = None
    stolen: bool = False


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    v: int = Field(default=1, ge=1, le=1)
    keys: tuple[TrustedKey, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """`retired_at` is None while the key is in use."""

    verifier: Verifier
    retired_at: dict[str, Checkpoint] | None = None
    stolen: bool = False


class KeySet:
    """Keys by name and id. Immutable: rotation gives a new set."""

    def __init__(self, keys: Iterable[Verifier | TrustedKey]) -> None:
        """Raises KeyFileInvalid for a malformed key, one that occurs twice, or none at all."""
        self._entries: dict[tuple[str, bytes], _Entry] = {}
        for key in keys:
            entry = _entry(key) if isinstance(key, TrustedKey) else _Entry(key)
            ident = (entry.verifier.name, entry.verifier.key_id)
            if ident in self._entries:
                raise KeyFileInvalid(f"key {entry.verifier.vkey!r} occurs twice; keep one entry")
            self._entries[ident] = entry
        if not self._entries:
            raise KeyFileInvalid("there is no key, so nothing could be trusted; add the log's public key")

    @classmethod
    def load(cls, path: Path) -> KeySet:
        """Read the JSON file, or a file with one vkey line. Raises KeyFileInvalid naming the file and the field."""
        try:
            text = path.read_text("utf-8").strip()
            return cls.parse(text)
        except (OSError, UnicodeDecodeError, KeyFileInvalid) as error:
            raise KeyFileInvalid(f"{path}: {error}") from error

    @classmethod
    def parse(cls, text: str) -> KeySet:
        """As `load`, from the text itself."""
        if not text.lstrip().startswith("{"):
            return cls([Verifier.from_vkey(line) for line in text.splitlines() if line.strip()])
        try:
            return cls(_KeyFile.model_validate(json.loads(text)).keys)
        except (ValidationError, ValueError) as error:
            raise KeyFileInvalid(f"no key file: {error}") from error

    def save(self, path: Path) -> None:
        """Replace the file as a whole; it is on the disk on return. Raises OSError."""
        staged = path.with_name(f"{path.name}.new-{os.getpid()}")
        with staged.open("w", encoding="utf-8") as file:
            file.write(self.text())
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        sync_directory(path.absolute().parent)

    def text(self) -> str:
        """What `load` reads."""
        keys = [_trusted(entry).model_dump(exclude_defaults=True) for entry in self._entries.values()]
        return json.dumps({"v": 1, "keys": keys}, indent=1) + "\n"

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """All keys, retired ones too."""
        return tuple(entry.verifier for entry in self._entries.values())

    def find(self, name: str, key_id: bytes) -> Verifier | None:
        """The key of a signature line; None when it is not known here."""
        entry = self._entries.get((name, key_id))
        return entry.verifier if entry else None

    def check(self, key: Verifier, checkpoint: Checkpoint) -> None:
        """Raise Untrusted when `key` was retired before it may have signed this checkpoint."""
        entry = self._entries[key.name, key.key_id]
        if entry.retired_at is None:
            return
        point = entry.retired_at.get(checkpoint.origin)
        if point is None:
            message = f"{checkpoint.origin}: signed with the old key {_short(key)}, which never served this tree"
            raise Untrusted(message, 0)
        resigned = f"{checkpoint.origin}: {checkpoint.size} leaves re-signed with an old key: {_short(key)} was retired"
        if checkpoint.size > point.size:
            raise Untrusted(f"{resigned} at {point.size}", point.size)
        if checkpoint.size == point.size and checkpoint.root != point.root:
            raise Untrusted(f"{resigned} at another root of that size", 0)
        if entry.stolen and checkpoint.size < point.size:
            raise Untrusted(f"{resigned} at {point.size}, and as it was stolen, counts for that tree alone", 0)

    def in_use(self, key: Verifier) -> bool:
        """Whether `key` is here and not retired: only such a key may sign."""
        entry = self._entries.get((key.name, key.key_id))
        return entry is not None and entry.retired_at is None

    def retirements(self, origin: str) -> list[Checkpoint]:
        """Trees of this origin that were handed over to a next key, smallest first: the log must contain each."""
        all_points = [entry.retired_at or {} for entry in self._entries.values()]
        found = [points[origin] for points in all_points if origin in points]
        return sorted(found, key=lambda point: point.size)

    def retired_origins(self) -> set[str]:
        """Origins of all trees at which a key was retired: none of them may be gone."""
        return {origin for entry in self._entries.values() for origin in entry.retired_at or ()}

    def retire(self, key: Verifier, newest: Sequence[Checkpoint], *, stolen: bool = False) -> KeySet:
        """A set in which `key` is trusted up to these checkpoints, one for each tree; if `stolen`, for them alone."""
        kept = [_trusted(entry) for entry in self._entries.values() if entry.verifier != key]
        retired = _Entry(key, {checkpoint.origin: checkpoint for checkpoint in newest}, stolen)
        return KeySet([*kept, _trusted(retired)])

    def adding(self, key: Verifier) -> KeySet:
        """A set with one more key in use."""
        return KeySet([*map(_trusted, self._entries.values()), key])


def _entry(key: TrustedKey) -> _Entry:
    verifier = Verifier.from_vkey(key.vkey)
    if key.retired_at is not None:
        points = {origin: Checkpoint(origin, at.size, _root(at.root, origin)) for origin, at in key.retired_at.items()}
        return _Entry(verifier, points, key.stolen)
    if key.stolen:
        raise KeyFileInvalid(f"key {key.vkey!r} is stolen: retired_at must name the trees that it still counts for")
    return _Entry(verifier)


def _root(text: str, origin: str) -> bytes:
    try:
        root = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise KeyFileInvalid(f"retired_at.{origin}.root {text!r} is not base64") from error
    if len(root) != HASH_BYTES:
        raise KeyFileInvalid(f"retired_at.{origin}.root has {len(root)} bytes, expected {HASH_BYTES}")
    return root


def _trusted(entry: _Entry) -> TrustedKey:
    if entry.retired_at is None:
        return TrustedKey(vkey=entry.verifier.vkey)
    retired = {
        origin: RetiredAt(size=point.size, root=base64.b64encode(point.root).decode())
        for origin, point in entry.retired_at.items()
    }
    return TrustedKey(vkey=entry.verifier.vkey, retired_at=retired, stolen=entry.stolen)


def _short(key: Verifier) -> str:
    return f"{key.name}+{key.key_id.hex()}"
