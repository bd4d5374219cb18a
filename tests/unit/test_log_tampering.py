"""Everything that somebody with access to the storage can do to a log is seen, and the first bad entry named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.checkpoint import Checkpoint, sign_checkpoint
from pipeline.evidence.log.edge import RightEdge
from pipeline.evidence.log.errors import LogCorrupt, LogError
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf
from pipeline.evidence.log.merkle import leaf_hash
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage, open_log_storage
from pipeline.evidence.log.tiles import pack_bundle, whole_entries
from pipeline.evidence.log.verify_all import MAX_FAULTS, Verification, verify_all
from tests.support.audit_logs import KEYS, LOG, ORIGIN, SIGNER, filled, leaves, reader, signer

SIZE = 700
"""Two full bundles and one of 188 entries."""

Entries = list[bytes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def storage(root: Path) -> LogStorage:
    filled(open_log_storage(root.as_uri()), SIZE, batch=350)
    return open_log_storage(root.as_uri())


def checked(storage: LogStorage, kept: Checkpoint | None = None, keys: KeySet = KEYS) -> Verification:
    return verify_all(storage, ORIGIN, keys, kept=[kept] if kept else [])


def stored(root: Path, kind: str, number: int) -> Path:
    """The file of the full tile or bundle, else of the widest unfinished one, which is the checkpoint's."""
    full = root / f"{kind}/{number:03}"
    unfinished = root / f"{kind}/{number:03}.p"
    return full if full.exists() else max(unfinished.iterdir(), key=lambda path: int(path.name))


def edit_bundle(root: Path, index: int, edit: Callable[[Entries, int], None]) -> None:
    path = stored(root, "tile/entries", index // 256)
    entries = list(whole_entries(path.read_bytes()))
    edit(entries, index % 256)
    path.write_bytes(pack_bundle(entries))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def change(entries: Entries, at: int) -> None:
    entries[at] = entries[at].replace(b'"v":1', b'"v":2')


def delete(entries: Entries, at: int) -> None:
    del entries[at]


def insert(entries: Entries, at: int) -> None:
    entries.insert(at, leaves(5000, 5001)[0])


def reorder(entries: Entries, at: int) -> None:
    entries[at], entries[at + 1] = entries[at + 1], entries[at]


def empty(entries: Entries, at: int) -> None:
    entries[at] = b""


def test_an_untouched_log_is_fine(storage: LogStorage) -> None:
    found = checked(storage, reader(storage).checkpoint())
    assert found.ok
    assert (found.entries, found.first_bad_index) == (SIZE, None)
    assert found.checkpoint == reader(storage).checkpoint()


@pytest.mark.parametrize("index", [0, 100, 254, 256, 511, 512, 650, 698])
@pytest.mark.parametrize("edit", [change, delete, insert, reorder, empty])
def test_an_edited_bundle(storage: LogStorage, root: Path, index: int, edit: Callable[[Entries, int], None]) -> None:
    if edit is reorder and index == 511:
        index = 510
    edit_bundle(root, index, edit)
    assert checked(storage).first_bad_index == index
    with pytest.raises(LogCorrupt):
        reader(storage).entry(index)


@pytest.mark.parametrize("index", [0, 300, 699])
@pytest.mark.parametrize("into", [1, 2, 40])
def test_a_bundle_that_was_cut(storage: LogStorage, root: Path, index: int, into: int) -> None:
    path = stored(root, "tile/entries", index // 256)
    entries = list(whole_entries(path.read_bytes()))
    path.write_bytes(pack_bundle(entries[: index % 256]) + pack_bundle([entries[index % 256]])[:into])
    assert checked(storage).first_bad_index == index


@pytest.mark.parametrize("index", [0, 255, 256, 699])
def test_a_changed_leaf_hash(storage: LogStorage, root: Path, index: int) -> None:
    flip(stored(root, "tile/0", index // 256), index % 256 * 32 + 7)
    assert checked(storage).first_bad_index == index
    with pytest.raises(LogCorrupt):
        reader(storage).entry(index)


@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_hash_above(storage: LogStorage, root: Path, number: int) -> None:
    flip(stored(root, "tile/1", 0), number * 32)
    assert checked(storage).first_bad_index == number * 256
    with pytest.raises(LogCorrupt):
        reader(storage).entry(650)


@pytest.mark.parametrize(
    ("kind", "number", "index"),
    [("tile/entries", 0, 0), ("tile/entries", 1, 256), ("tile/entries", 2, 512), ("tile/0", 1, 256), ("tile/1", 0, 0)],
)
def test_a_removed_file(storage: LogStorage, root: Path, kind: str, number: int, index: int) -> None:
    stored(root, kind, number).unlink()
    assert checked(storage).first_bad_index == index


def test_exchanged_bundles(storage: LogStorage, root: Path) -> None:
    one, other = stored(root, "tile/entries", 0), stored(root, "tile/entries", 1)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert checked(storage).first_bad_index == 0


def test_an_entry_whose_hash_was_changed_with_it(storage: LogStorage, root: Path) -> None:
    """The tile above gives it away, but only to its 256 leaves."""
    edit_bundle(root, 300, change)
    entries = list(whole_entries(stored(root, "tile/entries", 1).read_bytes()))
    stored(root, "tile/0", 1).write_bytes(b"".join(map(leaf_hash, entries)))
    found = checked(storage)
    assert found.first_bad_index == 300
    assert "no leaf" in found.faults[0].message
    assert verify_all(storage, ORIGIN, KEYS, leaves=False).first_bad_index == 256


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def rewritten(root: Path, entries: Entries, key: Signer | None) -> None:
    """All tiles and bundles anew, as somebody would who may write everything; signed if they have the key."""
    edge = RightEdge()
    for tile in edge.grow([leaf_hash(entry) for entry in entries]):
        write(root / tile.path, b"".join(tile.hashes))
        if tile.level == 0:
            bundle = pack_bundle(entries[tile.index * 256 :][: len(tile.hashes)])
            write(root / tile.path.replace("tile/0/", "tile/entries/"), bundle)
    if key:
        (root / "checkpoint").write_bytes(sign_checkpoint(Checkpoint(ORIGIN, edge.size, edge.root()), key))


def test_a_whole_tree_that_was_replaced_without_the_key(storage: LogStorage, root: Path) -> None:
    kept = checkpoint_at(storage, 400)
    other = leaves(0, 300) + leaves(1000, 1400)
    rewritten(root, other, key=None)
    assert checked(storage).first_bad_index == 0
    assert checked(storage, Checkpoint(ORIGIN, 300, reader_root(leaves(0, 300)))).first_bad_index == 300
    assert checked(storage, kept).first_bad_index == 0


def checkpoint_at(storage: LogStorage, size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, reader(storage)._tree().root(size))


def reader_root(entries: Entries) -> bytes:
    edge = RightEdge()
    edge.grow([leaf_hash(entry) for entry in entries])
    return edge.root()


def test_a_fork_signed_with_the_logs_own_key(storage: LogStorage, root: Path) -> None:
    """Without a kept checkpoint a fork is a log like any other; with two the fork lies between them."""
    kept = [checkpoint_at(storage, size) for size in (250, 600, 700)]
    rewritten(root, leaves(0, 400) + leaves(1000, 1300), key=SIGNER)
    assert checked(storage).ok
    found = verify_all(storage, ORIGIN, KEYS, kept=kept)
    assert found.first_bad_index == 250
    assert "forked" in found.faults[0].message
    with pytest.raises(LogCorrupt, match="forked"):
        reader(storage).check_continues(kept[2])


def test_a_log_that_was_rolled_back(storage: LogStorage, root: Path) -> None:
    """Restoring all files of an earlier day is seen by whoever kept a later checkpoint, and by nobody else."""
    kept = reader(storage).checkpoint()
    rewritten(root, leaves(0, 350), key=None)
    earlier = Checkpoint(ORIGIN, 350, reader_root(leaves(0, 350)))
    (root / "checkpoint").write_bytes(sign_checkpoint(earlier, SIGNER))
    assert checked(storage).ok
    found = checked(storage, kept)
    assert found.first_bad_index == 350
    assert "rolled back" in found.faults[0].message
    with pytest.raises(LogCorrupt):
        AuditLog.open(storage, ORIGIN, SIGNER, KEYS).append(leaves(1000, 1400))


def test_a_log_that_was_removed(storage: LogStorage, root: Path) -> None:
    kept = reader(storage).checkpoint()
    (root / "checkpoint").unlink()
    assert checked(storage, kept).first_bad_index == 0


def test_a_truncated_log_under_its_checkpoint(storage: LogStorage, root: Path) -> None:
    stored(root, "tile/entries", 2).unlink()
    stored(root, "tile/0", 2).unlink()
    assert checked(storage).first_bad_index == 512


@pytest.mark.parametrize("again", [699, 650, 0])
def test_a_record_that_was_logged_again(storage: LogStorage, again: int) -> None:
    AuditLog.open(storage, ORIGIN, SIGNER, KEYS).append([*leaves(again, again + 1), *leaves(700, 701)])
    found = checked(storage)
    assert found.first_bad_index == 700
    assert "replay" in found.faults[0].message


def test_a_leaf_of_another_partition(storage: LogStorage) -> None:
    foreign = Leaf.parse(leaves(700, 701)[0]).model_copy(update={"partition": 1}).encode()
    AuditLog.open(storage, ORIGIN, SIGNER, KEYS).append([foreign])
    found = checked(storage)
    assert found.first_bad_index == 700
    assert "another tree" in found.faults[0].message


@pytest.mark.parametrize("size", [500, 700, 900])
def test_a_log_re_signed_with_an_old_key(storage: LogStorage, root: Path, size: int) -> None:
    """Who finds a retired key can neither go on, nor replace what it signed last, nor go back behind it."""
    retired = reader(storage).checkpoint()
    keys = KEYS.adding(signer(2).verifier).retire(SIGNER.verifier, [retired])
    AuditLog.open(storage, ORIGIN, signer(2), keys).append(leaves(700, 800))
    assert checked(storage, keys=keys).ok
    rewritten(root, leaves(0, 400) + leaves(1000, 1000 + size - 400), key=SIGNER)
    found = checked(storage, keys=keys)
    assert found.first_bad_index == {500: 500, 700: 0, 900: 700}[size]
    assert ("old key" in found.faults[0].message) is (size >= 700)
    with pytest.raises(LogError):
        AuditLog.open(storage, ORIGIN, signer(2), keys)


def test_a_checkpoint_that_was_edited(storage: LogStorage, root: Path) -> None:
    (root / "checkpoint").write_bytes((root / "checkpoint").read_bytes().replace(b"\n700\n", b"\n600\n"))
    found = checked(storage)
    assert not found.ok
    assert (found.checkpoint, found.first_bad_index) == (None, None)
    assert "changed" in found.faults[0].message


def test_a_checkpoint_of_another_tree_put_here(storage: LogStorage, root: Path) -> None:
    origin = f"{LOG}/decisions.block/1"
    (root / "checkpoint").write_bytes(sign_checkpoint(Checkpoint(origin, 0, reader_root([])), SIGNER))
    assert "not of" in checked(storage).faults[0].message


def test_faults_are_listed_up_to_a_bound(storage: LogStorage, root: Path) -> None:
    for number in range(3):
        stored(root, "tile/0", number).write_bytes(bytes(len(stored(root, "tile/0", number).read_bytes())))
    found = checked(storage)
    assert len(found.faults) == MAX_FAULTS
    assert [fault.index for fault in found.faults] == list(range(MAX_FAULTS))
