"""Drawing a share of the decisions by their uid: the same ones at each replay, whoever draws."""

from __future__ import annotations

import hashlib
from uuid import UUID

_SPAN = 2**64


def drawn(uid: UUID, share: float, seed: str) -> bool:
    """True for `share` of all uids.

    The seed is the key of the hash: who does not know it cannot choose a media id that is never drawn. A larger share
    draws all that a smaller one draws.

    Args:
        uid: of the decision.
        share: 0 none, 1 all.
        seed: any text.
    """
    key = hashlib.blake2b(seed.encode(), digest_size=32).digest()
    place = int.from_bytes(hashlib.blake2b(uid.bytes, digest_size=8, key=key).digest(), "big")
    return place < share * _SPAN
