"""Master keys: they wrap the keys of single objects and are never stored beside them.

A data key is wrapped by AES key wrap (RFC 3394) under a key that HKDF-SHA256 (RFC 5869) derives from the master key
and the data key's own name. So a wrapped key opens under its own tenant and digest alone, and there is no nonce
whose repetition would limit how many keys one master key may wrap.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from pipeline.media.errors import ContentCorrupt, StoreUnavailable
from pipeline.media.store_settings import KeySettings

KEY_BYTES = 32
_INFO = b"mediasieve data key v1"
_CHECK_INFO = b"mediasieve master key check v1"
_CHECK_BYTES = 8


class MasterKeyError(Exception):
    """A master key's file cannot be used; the text names file and setting."""


class MasterKeys:
    """Several by id; new keys are wrapped under `current`."""

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        """`keys`: id -> 32 bytes. Raises MasterKeyError."""
        for name, key in keys.items():
            if len(key) != KEY_BYTES:
                raise MasterKeyError(f"master key {name!r} has {len(key)} bytes; it needs {KEY_BYTES}")
        if current not in keys:
            raise MasterKeyError(f"master key {current!r} is not among {', '.join(sorted(keys)) or 'none'}")
        self._keys = dict(keys)
        self.current = current

    @classmethod
    def load(cls, settings: KeySettings) -> MasterKeys:
        """Read the files. Raises MasterKeyError."""
        return cls({name: _read(name, path) for name, path in settings.master_keys.items()}, settings.current)

    def check(self, master: str) -> str:
        """Eight bytes in hex that say which key an id stood for; they say nothing of the key itself.

        Raises:
            StoreUnavailable: the master key is not configured here; nothing is lost.
        """
        if master not in self._keys:
            raise StoreUnavailable(f"master key {master!r} is not here: add its file to store.keys.master_keys")
        return HKDF(SHA256(), _CHECK_BYTES, salt=None, info=_CHECK_INFO).derive(self._keys[master]).hex()

    def wrap(self, secret: bytes, name: str) -> bytes:
        """`secret` under the current master key, for the data key called `name`."""
        return aes_key_wrap(self._derived(self.current, name), secret)

    def unwrap(self, wrapped: bytes, name: str, master: str, check: str) -> bytes:
        """What `wrap` was given; `check` is of the master key at that time.

        Raises:
            StoreUnavailable: the master key is not configured here, or another one under its id; nothing is lost.
            ContentCorrupt: wrapped for another name, or changed since.
        """
        if self.check(master) != check:
            raise StoreUnavailable(
                f"{name} was wrapped under another key than the one that is here as {master!r}: "
                f"put the right file into store.keys.master_keys.{master}"
            )
        try:
            return aes_key_unwrap(self._derived(master, name), wrapped)
        except (InvalidUnwrap, ValueError) as error:
            raise ContentCorrupt(f"{name} does not open under master key {master!r}") from error

    def _derived(self, master: str, name: str) -> bytes:
        info = b"\0".join((_INFO, name.encode()))
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._keys[master])


def _read(name: str, path: Path) -> bytes:
    place = f"store.keys.master_keys.{name}: {path}"
    try:
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except OSError as error:
        raise MasterKeyError(f"{place}: {error.strerror}; write one: openssl rand -base64 32") from error
    except binascii.Error as error:
        raise MasterKeyError(f"{place}: is no base64; write one: openssl rand -base64 32") from error
    if len(key) != KEY_BYTES:
        raise MasterKeyError(f"{place}: holds {len(key)} bytes, not {KEY_BYTES}; write one: openssl rand -base64 32")
    return key
