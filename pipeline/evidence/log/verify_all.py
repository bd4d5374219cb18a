"""Re-reads a whole log with nothing but public keys, and names the first bad entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evidence.log.checkpoint import Checkpoint, open_checkpoint
from pipeline.evidence.log.edge import RightEdge, Tile
from pipeline.evidence.log.errors import LeafInvalid, LogCorrupt, Untrusted
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf
from pipeline.evidence.log.merkle import leaf_hash
from pipeline.evidence.log.storage import LogStorage, has_tiles
from pipeline.evidence.log.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    bundle_path,
    unpack_bundle,
    whole_entries,
    width_in,
)
from pipeline.evidence.log.tree_reader import ObjectCache, TreeReader

MAX_FAULTS = 100
"""A log that was replaced has one at every entry: enough is enough."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`index` is the first entry that it speaks of; None when the checkpoint is not to be trusted at all."""

    index: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Verification:
    """`checkpoint` is None when there is none that can be trusted; `entries` were re-read and hashed."""

    origin: str
    checkpoint: Checkpoint | None
    entries: int
    faults: tuple[Fault, ...]

    @property
    def first_bad_index(self) -> int | None:
        """The smallest index of a fault; None without one."""
        return min((fault.index for fault in self.faults if fault.index is not None), default=None)

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.faults


def verify_all(
    storage: LogStorage,
    origin: str,
    verifiers: KeySet,
    *,
    kept: Sequence[Checkpoint] = (),
    leaves: bool = True,
) -> Verification:
    """Re-read every entry and tile of one tree.

    Checks the checkpoint's signature, each entry against its hash, each tile against the tiles above, the root against
    the checkpoint, and that the tree continues each kept checkpoint and each tree at which a key was retired.

    Args:
        storage: of this tree.
        origin: of this tree.
        verifiers: public keys.
        kept: checkpoints of this origin that the auditor kept; without any, a roll-back to an older checkpoint and a
            history that was rewritten with the log's own key cannot be seen.
        leaves: check also that entries are our leaves, of this tree's partition, with rising offsets.

    Raises:
        LogUnavailable: the storage cannot be read now. Everything else is a fault in the answer.
    """
    try:
        stored = storage.read_checkpoint()
        if stored is None:
            return _without_checkpoint(storage, origin, [*kept, *verifiers.retirements(origin)])
        checkpoint = open_checkpoint(stored[0], verifiers, origin)
    except Untrusted as error:
        return Verification(origin, None, 0, (Fault(error.index, str(error)),))
    run = _Run(storage, checkpoint, [*kept, *verifiers.retirements(origin)], leaves)
    run.all()
    return Verification(origin, checkpoint, run.edge.size, tuple(run.faults[:MAX_FAULTS]))


def _without_checkpoint(storage: LogStorage, origin: str, kept: Sequence[Checkpoint]) -> Verification:
    message = ""
    if kept:
        largest = max(checkpoint.size for checkpoint in kept)
        message = f"{origin} has no checkpoint, but had one of {largest} leaves: the log was removed"
    elif has_tiles(storage):
        message = f"{origin} has entries or tiles and no checkpoint: it was removed"
    return Verification(origin, None, 0, (Fault(0, message),) if message else ())


class _Run:
    """One pass over the bundles, growing the tree again beside the stored tiles."""

    def __init__(self, storage: LogStorage, checkpoint: Checkpoint, kept: Sequence[Checkpoint], leaves: bool) -> None:
        self.edge = RightEdge()
        self.faults: list[Fault] = []
        self._head = checkpoint
        self._cache = ObjectCache(storage, 8)
        self._tree = TreeReader(self._cache, checkpoint.size)
        self._kept = sorted(kept, key=lambda one: one.size)
        self._proven = 0
        self._leaves = leaves
        self._offset = -1

    def all(self) -> None:
        for number in range(-(-self._head.size // TILE_WIDTH)):
            hashes = self._bundle(number)
            if hashes is None:
                return  # what follows could only be checked against tiles, which hang on what is missing
            if not self._grow(hashes):
                return
        if self.edge.root() != self._head.root and not self.faults:
            message = f"all tiles agree, but not with the checkpoint's root: the tree of {self._head.size} was replaced"
            self._add(self._proven, message)
        for checkpoint in self._kept:
            if checkpoint.size > self._head.size:
                message = f"rolled back: the log has {self._head.size} leaves, a kept checkpoint {checkpoint.size}"
                self._add(self._head.size, message)

    def _bundle(self, number: int) -> list[bytes] | None:
        """Leaf hashes by the entries, after comparing them with the tile's; None when either cannot be read."""
        first, width = number * TILE_WIDTH, width_in(self._head.size, 0, number)
        try:
            data, path = self._cache.read(lambda w: bundle_path(number, w), width)
            stored_width = TILE_WIDTH if path == bundle_path(number) else width
            entries = unpack_bundle(data, path, stored_width, first)[:width]
        except LogCorrupt as error:
            self._add_where_cut(number, error)
            return None
        hashes = [leaf_hash(entry) for entry in entries]
        try:
            tile = self._tree.tile(0, number)
        except LogCorrupt as error:
            self._add(first, str(error))
            return None
        for at, (found, expected) in enumerate(zip(hashes, tile, strict=True), first):
            if found != expected:
                self._add(at, f"{path}: entry {at} does not have the hash in its tile")
        if self._leaves:
            self._check_leaves(entries, first, path)
        return hashes

    def _add_where_cut(self, number: int, error: LogCorrupt) -> None:
        """A bundle of the wrong length: the first entry whose hash is not in the tile is the bad one."""
        first = number * TILE_WIDTH
        index = first if error.index is None else error.index
        try:
            data, _ = self._cache.read(lambda w: bundle_path(number, w), width_in(self._head.size, 0, number))
            tile = self._tree.tile(0, number)
        except LogCorrupt:
            self._add(index, str(error))
            return
        for at, (entry, expected) in enumerate(zip(whole_entries(data), tile, strict=False), first):
            if leaf_hash(entry) != expected:
                index = min(index, at)
                break
        self._add(index, str(error))

    def _check_leaves(self, entries: Sequence[bytes], first: int, path: str) -> None:
        for at, entry in enumerate(entries, first):
            try:
                leaf = Leaf.parse(entry)
            except LeafInvalid as error:
                self._add(at, f"{path}: entry {at}: {error}")
                continue
            if not self._head.origin.endswith(f"/{leaf.topic.value}/{leaf.partition}"):
                self._add(at, f"{path}: entry {at} is of {leaf.topic.value}/{leaf.partition}, which is another tree's")
            first_offset = leaf.offset if leaf.gap_from is None else leaf.gap_from
            if first_offset <= self._offset:
                self._add(at, f"{path}: entry {at} has offset {first_offset} after {self._offset}: order or replay")
            self._offset = max(self._offset, leaf.offset)

    def _grow(self, hashes: Sequence[bytes]) -> bool:
        """Append one bundle's leaves; False when there is no use in going on."""
        if not self._check_kept(hashes, self.edge.size + len(hashes)):
            return False
        grown = self.edge.grow(hashes)
        if self.faults:  # the tiles above hang on what is bad: they would only say it again
            return len(self.faults) < MAX_FAULTS
        return all(self._check_tile(tile) for tile in grown if tile.level)

    def _check_tile(self, tile: Tile) -> bool:
        """Compare with the stored tile, which may have more hashes by now."""
        first = tile.index * TILE_WIDTH
        try:
            stored = self._tree.tile(tile.level, tile.index)
        except LogCorrupt as error:
            self._add((first + len(tile.hashes) - 1) << (TILE_HEIGHT * tile.level), str(error))
            return False
        for at, (found, expected) in enumerate(zip(tile.hashes, stored, strict=False), first):
            if found != expected:
                index = at << (TILE_HEIGHT * tile.level)
                self._add(index, f"{tile.path}: hash {at} does not fit the entries from {index} on, below it")
                return False
        return True

    def _check_kept(self, hashes: Sequence[bytes], end: int) -> bool:
        while self._kept and self._kept[0].size <= end:
            kept = self._kept.pop(0)
            grown = self.edge.copy()
            grown.grow(hashes[: kept.size - grown.size] if kept.size > grown.size else ())
            if grown.root() != kept.root:
                message = f"forked: the first {kept.size} leaves do not have the root of a kept checkpoint"
                self._add(self._proven, message)
                return False
            self._proven = kept.size
        return True

    def _add(self, index: int, message: str) -> None:
        self.faults.append(Fault(index, message))
