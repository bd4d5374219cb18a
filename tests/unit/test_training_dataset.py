from __future__ import annotations

import hashlib
import json

import pytest
from PIL import Image

from pipeline.training.dataset import Labelled, read_manifest, read_pixels, source_folds


def labelled(synthetic, source, number=0):
    digest = hashlib.sha256(f"{source}{number}".encode()).hexdigest()
    return Labelled(path=None, sha256=digest, synthetic=synthetic, source=source, lora=False)


def test_folds_never_cut_through_a_source_and_spread_each_class():
    sizes = {"a": 50, "b": 30, "c": 20, "d": 5}
    rows = [labelled(s, k, n) for s in (False, True) for k, v in sizes.items() for n in range(v)]
    folds = source_folds(rows, 3)
    for synthetic in (False, True):
        where = {s: {f for r, f in zip(rows, folds, strict=True) if (r.synthetic, r.source) == (synthetic, s)}
                 for s in sizes}  # fmt: skip
        assert where == {"a": {0}, "b": {1}, "c": {2}, "d": {2}}


def test_a_manifest_row_is_checked_against_its_file(tmp_path):
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "x.png")
    digest = hashlib.sha256((tmp_path / "x.png").read_bytes()).hexdigest()
    row = {"path": "x.png", "sha256": digest, "label": "ai", "source": "s", "lora": "yes"}
    other = {**row, "label": "decoder"}
    (tmp_path / "manifest.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n")
    (read,) = read_manifest(tmp_path)
    assert (read.synthetic, read.lora, read_pixels(read).shape) == (True, True, (3, 4, 3))
    (tmp_path / "x.png").write_bytes(b"other")
    with pytest.raises(ValueError, match="sha256 differs"):
        read_pixels(read)


def test_a_bad_manifest_line_is_named(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"label": "ai"}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_manifest(tmp_path)
