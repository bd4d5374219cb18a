"""The public keys that are trusted for a log, with what each retired one was trusted up to.

The file that operators keep is JSON:

    {"v": 1, "keys": [
      {"vkey": "logs.example/audit+5aa3c1f0+AQ..."},
      {"vkey": "logs.example/audit+09b1d2e3+AQ...",
       "retired_at": {"logs.example/audit/decisions.block/0": {"size": 1200, "root": "<base64>"}}}
    ]}

A key without `retired_at` is in use. A retired key is trusted for the origins named, and there for trees of at most
`size` leaves; at that size the root must be `root`. Origins that are not named are refused: rotate with
`KeySet.retire`, while no writer runs, giving the newest checkpoint of every tree. A key that was stolen is retired in
the same way, at checkpoints that are known to be good.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.evidence.log.checkpoint import Checkpoint
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


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    v: int = Field(default=1, ge=1, le=1)
    keys: tuple[TrustedKey, ...]


class KeySet:
    """Keys by name and id. Immutable: rotation gives a new set."""

    def __init__(self, keys: Iterable[Verifier | TrustedKey]) -> None:
        """Raises KeyFileInvalid for a malformed key, one that occurs twice, or none at all."""
        self._entries: dict[tuple[str, bytes], tuple[Verifier, dict[str, Checkpoint] | None]] = {}
        for key in keys:
            entry = key if isinstance(key, TrustedKey) else TrustedKey(vkey=key.vkey)
            verifier = Verifier.from_vkey(entry.vkey)
            ident = (verifier.name, verifier.key_id)
            if ident in self._entries:
                raise KeyFileInvalid(f"key {entry.vkey!r} occurs twice; keep one entry")
            self._entries[ident] = (verifier, _points(entry))
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
        """Replace the file as a whole."""
        staged = path.with_name(f"{path.name}.new-{os.getpid()}")
        staged.write_text(self.text(), "utf-8")
        staged.replace(path)

    def text(self) -> str:
        """What `load` reads."""
        keys = [_as_json(verifier, points) for verifier, points in self._entries.values()]
        return json.dumps({"v": 1, "keys": keys}, indent=1) + "\n"

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """All keys, retired ones too."""
        return tuple(verifier for verifier, _ in self._entries.values())

    def find(self, name: str, key_id: bytes) -> Verifier | None:
        """The key of a signature line; None when it is not known here."""
        entry = self._entries.get((name, key_id))
        return entry[0] if entry else None

    def check(self, key: Verifier, checkpoint: Checkpoint) -> None:
        """Raise Untrusted when `key` was retired before it may have signed this checkpoint."""
        _, points = self._entries[key.name, key.key_id]
        if points is None:
            return
        point = points.get(checkpoint.origin)
        if point is None:
            message = f"{checkpoint.origin}: signed with the old key {_short(key)}, which never served this tree"
            raise Untrusted(message, 0)
        resigned = f"{checkpoint.origin}: {checkpoint.size} leaves re-signed with an old key: {_short(key)} was retired"
        if checkpoint.size > point.size:
            raise Untrusted(f"{resigned} at {point.size}", point.size)
        if checkpoint.size == point.size and checkpoint.root != point.root:
            raise Untrusted(f"{resigned} at another root of that size", 0)

    def in_use(self, key: Verifier) -> bool:
        """Whether `key` is here and not retired: only such a key may sign."""
        entry = self._entries.get((key.name, key.key_id))
        return entry is not None and entry[1] is None

    def retirements(self, origin: str) -> list[Checkpoint]:
        """Trees of this origin that were handed over to a next key, smallest first: the log must contain each."""
        found = [points[origin] for _, points in self._entries.values() if points and origin in points]
        return sorted(found, key=lambda point: point.size)

    def retire(self, key: Verifier, newest: Sequence[Checkpoint]) -> KeySet:
        """A set in which `key` is trusted up to these checkpoints, one for each tree, and no further."""
        kept = [_trusted(verifier, points) for verifier, points in self._entries.values() if verifier != key]
        retired = _trusted(key, {checkpoint.origin: checkpoint for checkpoint in newest})
        return KeySet([*kept, retired])

    def adding(self, key: Verifier) -> KeySet:
        """A set with one more key in use."""
        return KeySet([*(_trusted(verifier, points) for verifier, points in self._entries.values()), key])


def _points(entry: TrustedKey) -> dict[str, Checkpoint] | None:
    if entry.retired_at is None:
        return None
    return {origin: Checkpoint(origin, at.size, _root(at.root, origin)) for origin, at in entry.retired_at.items()}


def _root(text: str, origin: str) -> bytes:
    try:
        root = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise KeyFileInvalid(f"retired_at.{origin}.root {text!r} is not base64") from error
    if len(root) != HASH_BYTES:
        raise KeyFileInvalid(f"retired_at.{origin}.root has {len(root)} bytes, expected {HASH_BYTES}")
    return root


def _trusted(verifier: Verifier, points: dict[str, Checkpoint] | None) -> TrustedKey:
    if points is None:
        return TrustedKey(vkey=verifier.vkey)
    retired = {
        origin: RetiredAt(size=point.size, root=base64.b64encode(point.root).decode())
        for origin, point in points.items()
    }
    return TrustedKey(vkey=verifier.vkey, retired_at=retired)


def _as_json(verifier: Verifier, points: dict[str, Checkpoint] | None) -> dict[str, Any]:
    return _trusted(verifier, points).model_dump(exclude_none=True)


def _short(key: Verifier) -> str:
    return f"{key.name}+{key.key_id.hex()}"
