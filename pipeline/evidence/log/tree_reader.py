"""Hashes of any part of a stored tree, read from its tiles: O(log n) objects for a proof."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from pipeline.evidence.log.errors import LogCorrupt, NotInLog
from pipeline.evidence.log.merkle import node_hash, root_of
from pipeline.evidence.log.storage import LogStorage
from pipeline.evidence.log.tiles import TILE_HEIGHT, TILE_WIDTH, tile_path, unpack_tile, width_in


class ObjectCache:
    """The objects read last; all but the checkpoint are immutable. Least recently used goes first."""

    def __init__(self, storage: LogStorage, capacity: int) -> None:
        """`capacity` in objects."""
        self._storage = storage
        self._capacity = capacity
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def read(self, path_of: Callable[[int], str], width: int) -> tuple[bytes, str]:
        """The object of `width` parts, or the full one: partial ones may go once the full one is there.

        Returns its bytes and its path; the full one may have more than `width` parts.

        Raises:
            LogCorrupt: neither is there, although the checkpoint covers it.
            LogUnavailable: see `LogStorage.read`.
        """
        wanted = path_of(width)
        for path in dict.fromkeys((wanted, path_of(TILE_WIDTH))):
            try:
                return self._get(path), path
            except NotInLog:
                continue
        raise LogCorrupt(f"{wanted} is missing, although the checkpoint covers it")

    def _get(self, path: str) -> bytes:
        if path in self._held:
            self._held.move_to_end(path)
            return self._held[path]
        data = self._held[path] = self._storage.read(path)
        if len(self._held) > self._capacity:
            self._held.popitem(last=False)
        return data


class TreeReader:
    """Hashes and proof paths of the tree whose tiles lie in `cache`, as its checkpoint of `size` leaves left them."""

    def __init__(self, cache: ObjectCache, size: int) -> None:
        """Nothing is read yet, and nothing here is verified: compare with the checkpoint's root."""
        self._cache = cache
        self.size = size

    def tile(self, level: int, index: int) -> list[bytes]:
        """The hashes of one tile. Raises LogCorrupt when it is missing or has another length."""
        width = width_in(self.size, level, index)
        data, path = self._cache.read(lambda w: tile_path(level, index, w), width)
        return unpack_tile(data, path, TILE_WIDTH if path == tile_path(level, index) else width)[:width]

    def root(self, size: int | None = None) -> bytes:
        """Of the first `size` leaves; of all without it."""
        return self._range(0, self.size if size is None else size)

    def inclusion_path(self, index: int, size: int) -> list[bytes]:
        """RFC 6962, 2.1.1: from leaf `index` to the root of the first `size` leaves."""
        low, high, path = 0, size, []
        while high - low > 1:
            middle = low + _left_width(high - low)
            if index < middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        return path[::-1]

    def consistency_path(self, old: int, new: int) -> list[bytes]:
        """RFC 6962, 2.1.2: between the first `old` and the first `new` leaves."""
        if old in (0, new):
            return []
        low, high, path = 0, new, []
        while old != high:
            middle = low + _left_width(high - low)
            if old <= middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        if low:
            path.append(self._range(low, high))
        return path[::-1]

    def _range(self, start: int, end: int) -> bytes:
        """Root over leaves start to end, where `start` is a multiple of a power of two not below their number."""
        parts = []
        while start < end:
            level = (end - start).bit_length() - 1
            parts.append(self._node(level, start >> level))
            start += 1 << level
        if not parts:
            return root_of(())
        found = parts.pop()
        while parts:
            found = node_hash(parts.pop(), found)
        return found

    def _node(self, level: int, index: int) -> bytes:
        """Root of the perfect subtree number `index` of 2**level leaves."""
        above = level % TILE_HEIGHT
        first = index << above
        hashes = self.tile(level // TILE_HEIGHT, first // TILE_WIDTH)
        return root_of(hashes[first % TILE_WIDTH :][: 1 << above])


def _left_width(leaves: int) -> int:
    """The largest power of two below `leaves`."""
    return 1 << ((leaves - 1).bit_length() - 1)
