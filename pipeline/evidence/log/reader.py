"""Reading a log that somebody else writes: entries and proofs, all checked against a signed checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.evidence.log.checkpoint import Checkpoint, open_checkpoint
from pipeline.evidence.log.errors import LogCorrupt, LogError, NotInLog, ProofInvalid
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.merkle import leaf_hash, verify_consistency, verify_inclusion
from pipeline.evidence.log.storage import LogStorage, has_tiles
from pipeline.evidence.log.tiles import TILE_WIDTH, bundle_path, unpack_bundle, width_in
from pipeline.evidence.log.tree_reader import ObjectCache, TreeReader

_CACHED_TILES = 512
"""4 MiB at most."""

_CACHED_BUNDLES = 4


class LogReader:
    """Reads as of the checkpoint that it read last; `checkpoint()` reads the newest. For one thread."""

    def __init__(self, storage: LogStorage, origin: str, verifiers: KeySet) -> None:
        """Nothing is read yet."""
        self.origin = origin
        self._storage = storage
        self._verifiers = verifiers
        self._tiles = ObjectCache(storage, _CACHED_TILES)
        self._bundles = ObjectCache(storage, _CACHED_BUNDLES)
        self._head: tuple[Checkpoint, bytes] | None = None

    def checkpoint(self) -> Checkpoint:
        """Read and verify the newest checkpoint; what follows is as of it.

        Raises:
            NotInLog: the log has no checkpoint yet.
            Untrusted: see `open_checkpoint`.
            LogCorrupt: it was removed, or is smaller than the one that this reader read before, or forks from it, or
                from the tree at which a key was retired.
            LogUnavailable: see `LogStorage`.
        """
        stored = self._storage.read_checkpoint()
        if stored is None and (has_tiles(self._storage) or self._verifiers.retirements(self.origin)):
            raise LogCorrupt(f"{self.origin} has no checkpoint, but there was one: it was removed", 0)
        if stored is None:
            raise NotInLog(f"{self.origin} has no checkpoint yet")
        found = open_checkpoint(stored[0], self._verifiers, self.origin)
        earlier = self._head
        self._head = (found, stored[0])
        try:
            if earlier is None:
                self._check_retirements()
            elif earlier[0] != found:
                self.check_continues(earlier[0])
        except LogError:
            self._head = earlier
            raise
        return found

    def signed_checkpoint(self) -> bytes:
        """The signed note of the checkpoint as of which this reader reads."""
        return self._at()[1]

    def entry(self, index: int) -> bytes:
        """Entry `index`, checked against its leaf hash and the root.

        Raises:
            NotInLog: the tree is not that large.
            LogCorrupt: it is not what the checkpoint covers.
        """
        found = next(self.entries(index, index + 1))
        self.inclusion_proof(index)
        return found

    def entries(self, start: int, stop: int) -> Iterator[bytes]:
        """Entries `start` to `stop - 1`, each checked against its leaf hash in the tile. Raises as `entry` does."""
        size = self._at()[0].size
        if not 0 <= start <= stop <= size:
            raise NotInLog(f"{self.origin} has entries 0 to {size - 1}; there is no {start} to {stop - 1}")
        for number in range(start // TILE_WIDTH, -(-stop // TILE_WIDTH) if start < stop else 0):
            first = number * TILE_WIDTH
            for at, entry in enumerate(self._bundle(number), first):
                if start <= at < stop:
                    yield entry

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Path from leaf `index` to the root of `size` leaves, default all. Raises as `entry` does."""
        head = self._at()[0]
        size = head.size if size is None else size
        if not 0 <= index < size <= head.size:
            raise NotInLog(f"{self.origin} has {head.size} leaves: no proof of leaf {index} in a tree of {size}")
        tree = self._tree()
        path = tree.inclusion_path(index, size)
        leaf = tree.tile(0, index // TILE_WIDTH)[index % TILE_WIDTH]
        try:
            verify_inclusion(leaf, index, size, path, head.root if size == head.size else tree.root(size))
        except ProofInvalid as error:
            raise LogCorrupt(f"{self.origin}: the tiles do not fit the checkpoint: {error}", index) from error
        return path

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Path between the trees of the first `old` and the first `new` leaves.

        Raises:
            NotInLog: the tree is not that large, or `old` is larger than `new`.
            LogCorrupt: the tiles do not fit the checkpoint.
        """
        head, tree = self._at()[0], self._tree()
        if not 0 <= old <= new <= head.size:
            raise NotInLog(f"{self.origin} has {head.size} leaves: no consistency proof from {old} to {new}")
        path = tree.consistency_path(old, new)
        try:
            root = head.root if new == head.size else tree.root(new)
            verify_consistency(old, tree.root(old), new, root, path)
        except ProofInvalid as error:
            raise LogCorrupt(f"{self.origin}: the tiles do not fit the checkpoint: {error}") from error
        return path

    def check_continues(self, kept: Checkpoint) -> None:
        """Check that the tree begins with the one of a checkpoint that somebody kept.

        Raises:
            LogCorrupt: it is smaller (rolled back) or has other leaves (forked); `index` is where it may begin.
        """
        head = self._at()[0]
        if kept.size > head.size:
            raise LogCorrupt(f"{self.origin} was rolled back from {kept.size} to {head.size} leaves", head.size)
        path = self.consistency_proof(kept.size, head.size)
        try:
            verify_consistency(kept.size, kept.root, head.size, head.root, path)
        except ProofInvalid as error:
            raise LogCorrupt(f"{self.origin} was forked: {error}", 0) from error

    def _check_retirements(self) -> None:
        for point in self._verifiers.retirements(self.origin):
            self.check_continues(point)

    def _bundle(self, number: int) -> list[bytes]:
        width, first = width_in(self._at()[0].size, 0, number), number * TILE_WIDTH
        data, path = self._bundles.read(lambda w: bundle_path(number, w), width)
        found = unpack_bundle(data, path, TILE_WIDTH if path == bundle_path(number) else width, first)[:width]
        for at, (entry, leaf) in enumerate(zip(found, self._tree().tile(0, number), strict=True), first):
            if leaf_hash(entry) != leaf:
                raise LogCorrupt(f"{path}: entry {at} does not have the hash in its tile", at)
        return found

    def _tree(self) -> TreeReader:
        return TreeReader(self._tiles, self._at()[0].size)

    def _at(self) -> tuple[Checkpoint, bytes]:
        if self._head is None:
            self.checkpoint()
        if self._head is None:
            raise NotInLog(f"{self.origin} has no checkpoint yet")
        return self._head
