"""Passwords of local accounts, kept as scrypt hashes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata

MIN_CHARS = 12
MAX_CHARS = 256
"""scrypt's own first step takes any length; a longer one would only cost time."""

_N, _R, _P = 2**15, 8, 1
"""32 MiB and about 0.1 s a try."""

_MEMORY = 64 * 2**20
_SCHEME = "scrypt"


class PasswordRefused(Exception):
    """A password that no account may have; the text says why."""


def hash_password(password: str) -> str:
    """`scrypt$N$r$p$salt$digest`, with a salt of its own.

    Raises:
        PasswordRefused: too short or too long.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise PasswordRefused(f"a password has {MIN_CHARS} to {MAX_CHARS} characters, this one has {len(password)}")
    salt = secrets.token_bytes(16)
    parts = (_SCHEME, str(_N), str(_R), str(_P), _text(salt), _text(_digest(password, salt, _N, _R, _P)))
    return "$".join(parts)


def verify_password(password: str, kept: str) -> bool:
    """Whether the hash is that password's; takes as long for a wrong one.

    Raises:
        ValueError: `kept` is no hash of ours.
    """
    scheme, n, r, p, salt, digest = kept.split("$")
    if scheme != _SCHEME:
        raise ValueError(f"a password hash of the unknown scheme {scheme!r}; set the password again")
    found = _digest(password[:MAX_CHARS], base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(digest))


def spend_the_time(password: str) -> None:
    """What a wrong password costs, for names that have no account: they shall not be told apart by the clock."""
    _digest(password[:MAX_CHARS], bytes(16), _N, _R, _P)


def _digest(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    """Of the password in NFKC, so that the same letters typed on another keyboard are the same password."""
    normal = unicodedata.normalize("NFKC", password).encode()
    return hashlib.scrypt(normal, salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
