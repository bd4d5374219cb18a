"""The right edge of a growing tree: all that a writer must remember to append, at most 255 hashes a level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.evidence.log.merkle import EMPTY_ROOT, root_of
from pipeline.evidence.log.tiles import TILE_HEIGHT, TILE_WIDTH, levels_of, tile_path, width_in


@dataclass(frozen=True, slots=True)
class Tile:
    """Hashes of tile `index` of `level`; fewer than 256 while it is unfinished."""

    level: int
    index: int
    hashes: Sequence[bytes]

    @property
    def path(self) -> str:
        """Its name in the storage."""
        return tile_path(self.level, self.index, len(self.hashes))


class RightEdge:
    """`levels[l]` holds the hashes of the unfinished tile of level l, which may be none."""

    def __init__(self, size: int = 0, levels: Sequence[Sequence[bytes]] = ()) -> None:
        """`levels` as `unfinished_tiles` names them."""
        self.size = size
        self.levels = [list(level) for level in levels]

    def copy(self) -> RightEdge:
        """For growth that may come to nothing."""
        return RightEdge(self.size, self.levels)

    def grow(self, leaves: Sequence[bytes]) -> list[Tile]:
        """Append leaf hashes.

        Returns every tile that the tree of the new size needs and the old one did not have: the full ones bottom up,
        then the unfinished ones bottom up.
        """
        before = self.size
        tiles = list(self._fill(leaves))
        self.size += len(leaves)
        tiles += [
            Tile(level, index, tuple(self.levels[level]))
            for level, index in unfinished_tiles(self.size)
            if _nodes(before, level) != _nodes(self.size, level)
        ]
        return tiles

    def root(self) -> bytes:
        """Of the whole tree."""
        found: bytes | None = None
        for level in self.levels:
            if level or found is not None:
                found = root_of([*level, found] if found is not None else level)
        return EMPTY_ROOT if found is None else found

    def _fill(self, hashes: Sequence[bytes], level: int = 0) -> Iterator[Tile]:
        if level == len(self.levels):
            self.levels.append([])
        index = _nodes(self.size, level) // TILE_WIDTH
        row = [*self.levels[level], *hashes]
        whole = len(row) - len(row) % TILE_WIDTH
        full = [Tile(level, index + at // TILE_WIDTH, row[at : at + TILE_WIDTH]) for at in range(0, whole, TILE_WIDTH)]
        self.levels[level] = row[whole:]
        if full:
            yield from full
            yield from self._fill([root_of(tile.hashes) for tile in full], level + 1)


def unfinished_tiles(size: int) -> list[tuple[int, int]]:
    """Level and index of each partial tile of a tree of `size` leaves, bottom up."""
    found = []
    for level in levels_of(size):
        index = _nodes(size, level) // TILE_WIDTH
        if width_in(size, level, index):
            found.append((level, index))
    return found


def _nodes(size: int, level: int) -> int:
    """Perfect subtrees of 256**level leaves."""
    return size >> (TILE_HEIGHT * level)
