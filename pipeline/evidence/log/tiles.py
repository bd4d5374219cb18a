"""Names and contents of the static objects of a log: tiles of hashes, bundles of entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.evidence.log.errors import LogCorrupt
from pipeline.evidence.log.merkle import HASH_BYTES

TILE_WIDTH = 256
"""Hashes in a full tile, entries in a full bundle."""

TILE_HEIGHT = 8
"""Levels of the binary tree in a tile."""

MAX_ENTRY_BYTES = 65_535
"""What a uint16 length can say."""

CHECKPOINT = "checkpoint"

TILES = "tile"
"""The folder of tiles and bundles."""


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Such as `tile/0/x001/067` or, when partial, `tile/0/x001/067.p/5`."""
    return f"{TILES}/{level}/{_numbered(index, width)}"


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    """Such as `tile/entries/x001/067`."""
    return f"{TILES}/entries/{_numbered(index, width)}"


def full_path(path: str) -> str:
    """The name that an unfinished tile or bundle has once it is full."""
    return path.partition(".p/")[0]


def width_in(size: int, level: int, index: int) -> int:
    """Hashes that tile `index` of `level` has in a tree of `size` leaves: 0 to 256."""
    nodes = size >> (TILE_HEIGHT * level)
    return max(0, min(TILE_WIDTH, nodes - index * TILE_WIDTH))


def levels_of(size: int) -> range:
    """The levels on which a tree of `size` leaves has tiles."""
    return range(-(-size.bit_length() // TILE_HEIGHT))


def pack_bundle(entries: Sequence[bytes]) -> bytes:
    """Each entry behind its length as a big-endian uint16."""
    return b"".join(part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry))


def unpack_bundle(data: bytes, path: str, width: int, first: int) -> list[bytes]:
    """The entries of a bundle that must hold `width` of them, the first of which is number `first` of the log.

    Raises:
        LogCorrupt: it holds more or fewer, or is cut.
    """
    entries = list(whole_entries(data))
    if len(entries) != width or sum(map(len, entries)) + 2 * width != len(data):
        bad = first + min(len(entries), width)
        raise LogCorrupt(f"{path} holds {len(entries)} whole entries in {len(data)} bytes, expected {width}", bad)
    return entries


def whole_entries(data: bytes) -> Iterator[bytes]:
    """Entries of a bundle up to where it is cut."""
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            return
        yield data[at + 2 : end]
        at = end


def unpack_tile(data: bytes, path: str, width: int) -> list[bytes]:
    """The hashes of a tile that must hold `width` of them.

    Raises:
        LogCorrupt: it holds more or fewer.
    """
    if len(data) != width * HASH_BYTES:
        raise LogCorrupt(f"{path} has {len(data)} bytes, expected {width} hashes of {HASH_BYTES} bytes")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def _numbered(index: int, width: int) -> str:
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return name if width == TILE_WIDTH else f"{name}.p/{width}"
