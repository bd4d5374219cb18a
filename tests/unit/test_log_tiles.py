from __future__ import annotations

import pytest

from pipeline.evidence.log.edge import unfinished_tiles
from pipeline.evidence.log.errors import LogCorrupt
from pipeline.evidence.log.tiles import (
    bundle_path,
    full_path,
    levels_of,
    pack_bundle,
    tile_path,
    unpack_bundle,
    unpack_tile,
    whole_entries,
    width_in,
)


@pytest.mark.parametrize(
    ("index", "name"),
    [(0, "000"), (999, "999"), (1000, "x001/000"), (1_234_067, "x001/x234/067"), (10**9, "x001/x000/x000/000")],
)
def test_paths_are_the_specifications(index: int, name: str) -> None:
    assert tile_path(3, index) == f"tile/3/{name}"
    assert bundle_path(index, 5) == f"tile/entries/{name}.p/5"
    assert full_path(bundle_path(index, 5)) == bundle_path(index) == full_path(bundle_path(index))


def test_a_tree_of_70000_has_the_tiles_of_the_specifications_example() -> None:
    assert list(levels_of(70_000)) == [0, 1, 2]
    assert [width_in(70_000, 0, index) for index in (0, 272, 273, 274)] == [256, 256, 112, 0]
    assert [width_in(70_000, 1, index) for index in (0, 1, 2)] == [256, 17, 0]
    assert width_in(70_000, 2, 0) == 1
    assert unfinished_tiles(70_000) == [(0, 273), (1, 1), (2, 0)]
    assert unfinished_tiles(256) == [(1, 0)]
    assert unfinished_tiles(0) == []


def test_bundles_come_back() -> None:
    entries = [b"a", b"", b"x" * 65_535]
    data = pack_bundle(entries)
    assert data[:5] == b"\0\1a\0\0"
    assert unpack_bundle(data, "path", 3, 0) == entries


@pytest.mark.parametrize(
    ("data", "index"),
    [(b"\0\1a", 257), (b"\0\1a\0\2b", 257), (b"\0\1a\0\1b\0", 258), (b"\0\1a\0\1b\0\1c", 258), (b"", 256)],
)
def test_a_bundle_of_another_length_names_the_entry(data: bytes, index: int) -> None:
    with pytest.raises(LogCorrupt, match="tile/entries/001") as caught:
        unpack_bundle(data, bundle_path(1), 2, 256)
    assert caught.value.index == index


def test_whole_entries_end_where_the_bundle_is_cut() -> None:
    assert list(whole_entries(b"\0\1a\0\2b")) == [b"a"]
    assert list(whole_entries(b"\0\1a\0")) == [b"a"]


def test_a_tile_of_another_length_is_corrupt() -> None:
    with pytest.raises(LogCorrupt, match="tile/0/000"):
        unpack_tile(b"x" * 63, tile_path(0, 0), 2)
