"""The writer of one tree. Order of what becomes durable: entry bundles, tiles bottom up, then the checkpoint.

A new tree begins with a signed checkpoint of no leaves, so that a tree without a checkpoint lost it, and a key can be
retired at every tree that was ever opened. The checkpoint is the only object that changes, by compare-and-swap;
whatever lies beyond it does not count. A writer that dies anywhere leaves the old checkpoint or the new one, both true.
Unfinished objects are removed once the checkpoint covers the full one, as the specification allows; those of a writer
that was killed meanwhile may stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from pipeline.evidence.log.checkpoint import Checkpoint, serves, sign_checkpoint
from pipeline.evidence.log.edge import RightEdge, unfinished_tiles
from pipeline.evidence.log.errors import LogCorrupt, LogError, LogUnavailable, Superseded, Untrusted
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.merkle import EMPTY_ROOT, leaf_hash
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage, Token, has_tiles
from pipeline.evidence.log.tiles import MAX_ENTRY_BYTES, TILE_WIDTH, bundle_path, full_path, pack_bundle, tile_path
from pipeline.evidence.log.tree_reader import ObjectCache, TreeReader

POINTS = (
    *("before bundle", "after bundle", "before tile", "after tile"),
    *("before checkpoint", "after checkpoint", "before discard", "after discard"),
)
"""What `hook` is called with, around each durable step."""

Hook = Callable[[str], None]


def _no_hook(_point: str) -> None:
    pass


class AuditLog:
    """The one writer of a tree; `open` makes it. For one thread.

    After any error of `append` it is spent, because the storage may or may not hold the entries: open the log again,
    and go on behind its last entry.
    """

    def __init__(self, storage: LogStorage, origin: str, signer: Signer, stored: tuple[bytes, Token] | None) -> None:
        """Use `open`, which verifies what is stored."""
        self._storage = storage
        self._origin = origin
        self._signer = signer
        self._stored = stored
        self._edge = RightEdge()
        self._tail: list[bytes] = []
        self._last: bytes | None = None
        self._unfinished: dict[str, list[str]] = {}
        self._spent: LogError | None = None
        self._hook: Hook = _no_hook

    @classmethod
    def open(
        cls,
        storage: LogStorage,
        origin: str,
        signer: Signer,
        verifiers: KeySet,
        *,
        kept: Sequence[Checkpoint] = (),
        hook: Hook | None = None,
    ) -> AuditLog:
        """Verify the stored checkpoint, its tiles and its last entries, then take over; a new tree gets its first one.

        Args:
            storage: of this tree alone; see `LogStorage.under`.
            origin: `<log name>/<logical topic>/<partition>`.
            signer: signs from now on; in `verifiers`, and not retired.
            verifiers: keys of earlier checkpoints too.
            kept: checkpoints that were kept elsewhere, by a witness say; the log must continue each.
            hook: called around each durable step of `append` with one of `POINTS`; what it raises is passed on.

        Raises:
            Untrusted: the checkpoint is not signed by a key that counts, or `signer` is unknown.
            Superseded: `signer` is retired, or another writer is opening or appending right now.
            LogCorrupt: tiles or entries are not what the checkpoint covers, an earlier tree is not continued, or the
                checkpoint was removed.
            LogUnavailable: see `LogStorage`.
        """
        _check_signer(signer, verifiers, origin)
        stored = storage.read_checkpoint()
        log = cls(storage, origin, signer, stored)
        log._hook = hook or _no_hook
        if stored is not None:
            log._load(LogReader(storage, origin, verifiers), kept, stored[0])
        elif kept or verifiers.retirements(origin) or has_tiles(storage):
            raise LogCorrupt(f"{origin} has no checkpoint, but there was one: the log was removed", 0)
        else:
            log._begin()
        return log

    @property
    def size(self) -> int:
        """Entries that the checkpoint covers."""
        return self._edge.size

    def last_entry(self) -> bytes | None:
        """Entry `size - 1`; None while the log is empty."""
        return self._last

    def append(self, entries: Sequence[bytes]) -> Checkpoint:
        """Append, sign, publish. When it returns, all entries are durable and covered by the returned checkpoint.

        Raises:
            ValueError: no entries, or one that is empty or longer than 65,535 bytes; nothing was written.
            Superseded: another writer has moved the checkpoint.
            LogCorrupt: an object of that name holds other bytes; names it.
            LogUnavailable: the storage failed; the entries may or may not be in the log.
        """
        _check_entries(entries)
        if self._spent is not None:
            raise type(self._spent)(f"open the log again; this writer has failed: {self._spent}") from self._spent
        try:
            return self._append(entries)
        except LogError as error:
            self._spent = error
            raise
        except BaseException as error:  # whatever it was, the storage may hold a part; raised again
            self._spent = LogUnavailable(f"{type(error).__name__}: {error}")
            raise

    def _append(self, entries: Sequence[bytes]) -> Checkpoint:
        edge = self._edge.copy()
        bundles = list(self._bundles(entries))
        tiles = edge.grow([leaf_hash(entry) for entry in entries])
        for path, data in bundles:
            self._create("bundle", path, data)
        for tile in tiles:
            self._create("tile", tile.path, b"".join(tile.hashes))
        checkpoint = Checkpoint(self._origin, edge.size, edge.root())
        self._publish(sign_checkpoint(checkpoint, self._signer))
        self._tail = [*self._tail, *entries][-(edge.size % TILE_WIDTH) :] if edge.size % TILE_WIDTH else []
        self._edge, self._last = edge, entries[-1]
        self._discard([path for path, _ in bundles] + [tile.path for tile in tiles])
        return checkpoint

    def _bundles(self, entries: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
        rows = [*self._tail, *entries]
        first = self.size // TILE_WIDTH
        for at in range(0, len(rows), TILE_WIDTH):
            row = rows[at : at + TILE_WIDTH]
            yield bundle_path(first + at // TILE_WIDTH, len(row)), pack_bundle(row)

    def _create(self, kind: str, path: str, data: bytes) -> None:
        self._hook(f"before {kind}")
        self._check_own()
        self._storage.create(path, data)
        self._hook(f"after {kind}")

    def _check_own(self) -> None:
        """Before each object, so that a writer that was paused for long writes nothing after another took over."""
        found = self._storage.read_checkpoint()
        if (found and found[0]) != (self._stored and self._stored[0]):
            raise Superseded(f"{self._origin}: another writer has moved the checkpoint; this one must stop")

    def _discard(self, written: Sequence[str]) -> None:
        """Remove what full objects have replaced, and remember the unfinished ones for their turn."""
        for path in written:
            full = full_path(path)
            if path != full:
                self._unfinished.setdefault(full, []).append(path)
                continue
            for old in self._unfinished.pop(full, ()):
                self._hook("before discard")
                with suppress(LogUnavailable):  # the entries are in the log; a file too many harms nobody
                    self._storage.discard(old)
                self._hook("after discard")

    def _begin(self) -> None:
        note = sign_checkpoint(Checkpoint(self._origin, 0, EMPTY_ROOT), self._signer)
        self._stored = (note, self._storage.swap_checkpoint(note, None))

    def _publish(self, note: bytes) -> None:
        self._hook("before checkpoint")
        token = self._storage.swap_checkpoint(note, self._stored[1] if self._stored else None)
        self._stored = (note, token)
        self._hook("after checkpoint")

    def _load(self, reader: LogReader, kept: Sequence[Checkpoint], note: bytes) -> None:
        head = reader.checkpoint()
        if reader.signed_checkpoint() != note:
            raise Superseded(f"{self._origin}: another writer is appending right now")
        for checkpoint in kept:
            reader.check_continues(checkpoint)
        self._edge = _edge_of(self._storage, head)
        if self._edge.root() != head.root:
            raise LogCorrupt(f"{self._origin}: the right edge's tiles do not have the root of the checkpoint")
        if head.size:
            self._last = reader.entry(head.size - 1)
        width = head.size % TILE_WIDTH
        if width:
            self._tail = list(reader.entries(head.size - width, head.size))
            self._discard([bundle_path(head.size // TILE_WIDTH, width)])
        self._discard([tile_path(lv, at, len(self._edge.levels[lv])) for lv, at in unfinished_tiles(head.size)])


def _edge_of(storage: LogStorage, head: Checkpoint) -> RightEdge:
    unfinished = dict(unfinished_tiles(head.size))
    tree = TreeReader(ObjectCache(storage, len(unfinished)), head.size)
    levels = range(max(unfinished, default=-1) + 1)
    return RightEdge(head.size, [tree.tile(lv, unfinished[lv]) if lv in unfinished else [] for lv in levels])


def _check_signer(signer: Signer, verifiers: KeySet, origin: str) -> None:
    key = signer.verifier
    name = f"{key.name}+{key.key_id.hex()}"
    if verifiers.find(key.name, key.key_id) is None:
        raise Untrusted(f"{origin}: the signing key {name} is not in the file of public keys")
    if not verifiers.in_use(key):
        raise Superseded(f"{origin}: the signing key {name} was retired: start again with the next private key")
    if not serves(key, origin):
        raise Untrusted(
            f"{origin}: the signing key {name} is of another log, or a witness; the origin must begin with its name"
        )


def _check_entries(entries: Sequence[bytes]) -> None:
    if not entries:
        raise ValueError("append at least one entry")
    for number, entry in enumerate(entries):
        if not 0 < len(entry) <= MAX_ENTRY_BYTES:
            raise ValueError(f"entry {number} of the batch has {len(entry)} bytes, expected 1 to {MAX_ENTRY_BYTES}")
