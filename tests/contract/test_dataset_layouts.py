"""One suite over every dataset layout, each built in miniature."""

from __future__ import annotations

import itertools
import pickle
import random
import sys
from pathlib import Path

import pytest

from pipeline.evaluation.layouts import LAYOUTS, DatasetError, detect, open_dataset, read_bytes
from tests.support import dataset_trees
from tests.support.dataset_trees import TREES, Expected, Tree, image

Built = tuple[Tree, Path, dict[str, Expected]]


@pytest.fixture(params=TREES, ids=lambda tree: tree.layout)
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Built:
    tree: Tree = request.param
    if tree.needs_pyarrow:
        pytest.importorskip("pyarrow")
    root = tmp_path / "dataset"
    root.mkdir()
    return tree, root, tree.build(root)


def test_every_layout_has_a_tree() -> None:
    assert {tree.layout for tree in TREES} == set(LAYOUTS)


def test_the_layout_is_detected(built: Built) -> None:
    tree, root, _ = built
    assert detect(root).name == tree.layout
    assert open_dataset(root).layout == tree.layout


def test_samples_carry_the_labels_of_the_tree(built: Built) -> None:
    tree, root, expected = built
    samples = list(open_dataset(root, tree.layout).samples())
    found = {s.key: (s.synthetic, s.generator, s.source) for s in samples}
    assert found == {key: (e.synthetic, e.generator, e.source) for key, e in expected.items()}
    assert len(samples) == len(found)
    assert all(s.group for s in samples)


def test_bytes_are_those_that_were_written_in_any_order(built: Built) -> None:
    _, root, expected = built
    samples = list(open_dataset(root).samples())
    random.Random(0).shuffle(samples)
    for sample in samples:
        assert read_bytes(sample) == expected[sample.key].data


def test_every_pass_gives_the_same_order_and_survives_pickling(built: Built) -> None:
    _, root, _ = built
    dataset = open_dataset(root)
    first = list(dataset.samples())
    assert list(pickle.loads(pickle.dumps(dataset)).samples()) == first
    assert pickle.loads(pickle.dumps(first)) == first


def test_samples_stream(built: Built) -> None:
    _, root, _ = built
    assert len(list(itertools.islice(open_dataset(root).samples(), 1))) == 1


def test_split_selects_its_images(built: Built) -> None:
    tree, root, _ = built
    if tree.split is None:
        if not LAYOUTS[tree.layout].takes_split:
            with pytest.raises(DatasetError, match="no splits"):
                open_dataset(root, split="val")
        return
    assert {s.key for s in open_dataset(root, split=tree.split).samples()} == tree.of_split
    with pytest.raises(DatasetError, match="no image of split 'nightly'"):
        list(open_dataset(root, split="nightly").samples())


def test_reals_are_refused_where_the_layout_has_its_own(built: Built) -> None:
    tree, root, _ = built
    if LAYOUTS[tree.layout].takes_reals:
        with pytest.raises(DatasetError, match="no such directory"):
            open_dataset(root, reals=root / "absent")
    else:
        with pytest.raises(DatasetError, match="leave `reals` out"):
            open_dataset(root, reals=root)


def test_a_missing_image_is_named(built: Built) -> None:
    _, root, _ = built
    sample = next(s for s in open_dataset(root).samples())
    if sample.row is not None:
        with pytest.raises(DatasetError, match="no row 9999"):
            read_bytes(type(sample)(sample.key, True, sample.path, "", "", row=9999, column=sample.column))
        return
    sample.path.unlink()
    with pytest.raises(DatasetError, match=sample.path.name):
        read_bytes(sample)


def test_an_unknown_tree_lists_the_layouts(tmp_path: Path) -> None:
    image(tmp_path / "holiday/1.jpg")
    with pytest.raises(DatasetError) as raised:
        detect(tmp_path)
    assert all(name in str(raised.value) for name in LAYOUTS)


def test_an_absent_root_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(DatasetError, match="no layout 'imagenet'"):
        open_dataset(tmp_path, "imagenet")


def test_two_readings_are_an_error_until_one_is_named(tmp_path: Path) -> None:
    dataset_trees.genimage(tmp_path)
    dataset_trees.aigibench(tmp_path)
    with pytest.raises(DatasetError, match="genimage, aigibench"):
        detect(tmp_path)
    assert sum(s.generator == "SD3" for s in open_dataset(tmp_path, "aigibench").samples()) == 1


def test_a_manifest_decides_before_the_names_of_directories(tmp_path: Path) -> None:
    dataset_trees.manifest(tmp_path)
    dataset_trees.synthbuster(tmp_path)
    assert detect(tmp_path).name == "manifest"


def test_synthbuster_takes_photographs_from_elsewhere(tmp_path: Path) -> None:
    image(tmp_path / "synthbuster/glide/r1.png")
    image(tmp_path / "raise/deep/r1.tif")
    with pytest.raises(DatasetError, match="RAISE-1k"):
        list(open_dataset(tmp_path / "synthbuster").samples())
    samples = list(open_dataset(tmp_path / "synthbuster", reals=tmp_path / "raise").samples())
    assert [(s.key, s.synthetic, s.source) for s in samples] == [
        ("reals/deep/r1.tif", False, "raise"),
        ("glide/r1.png", True, "glide"),
    ]


def test_drct_pairs_a_generated_image_with_its_photograph(tmp_path: Path) -> None:
    dataset_trees.drct_2m(tmp_path)
    (generated,) = [s for s in open_dataset(tmp_path, split="val2017").samples() if s.synthetic]
    assert generated.paired_with == "MSCOCO/val2017/000000000139.jpg"
    assert (generated.group, generated.adapter_type) == ("000000000139", "lora")
    apart = open_dataset(tmp_path / "DRCT-2M", reals=tmp_path / "MSCOCO")
    keys = {s.key: s.paired_with for s in apart.samples()}
    assert keys["lcm-lora-sdxl/val2017/000000000139.png"] in keys


def test_the_adapter_bench_keeps_base_rank_and_pairs(tmp_path: Path) -> None:
    dataset_trees.adapter_bench(tmp_path)
    samples = {s.key: s for s in open_dataset(tmp_path).samples()}
    adapted, base = samples[dataset_trees.ADAPTER_IMAGE], samples["tiny/none/r00/base/p1-s0.png"]
    assert (adapted.base, adapted.adapter_type, adapted.rank, adapted.group) == ("tiny", "lora", 4, "adapter a0")
    assert (base.adapter_type, base.rank, base.group) == ("none", None, "prompt 1")
    assert (adapted.paired_with, base.paired_with) == (base.key, "photographs/1.png")


def test_same_prompt_is_one_cluster(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    dataset_trees.openfake(tmp_path)
    assert len({s.group for s in open_dataset(tmp_path).samples()}) == 1


def test_changed_bytes_are_refused(tmp_path: Path) -> None:
    dataset_trees.manifest(tmp_path)
    (tmp_path / "ai/1.png").write_bytes(b"another")
    sample = next(s for s in open_dataset(tmp_path).samples() if s.synthetic)
    with pytest.raises(DatasetError, match="sha256"):
        read_bytes(sample)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ("[]", "not a JSON object"),
        ('{"path": "a", "label": "maybe", "source": "s"}', "label"),
        ('{"path": "a", "label": "ai"}', "source"),
    ],
)
def test_a_bad_manifest_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    good = '{"path": "a", "label": "ai", "source": "s"}'
    (tmp_path / "manifest.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        list(open_dataset(tmp_path).samples())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "filename,typ\n1.jpg,\n", "line 2: no value for typ"),
        ("a.csv", "image,class\n1.jpg,maybe\n", "line 2: label 'maybe'"),
        ("test_paths.csv", "dataset_name,path\na,b\n", "must say real or fake"),
    ],
)
def test_a_bad_csv_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        list(open_dataset(tmp_path).samples())


def test_without_pyarrow_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test-00000.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DatasetError, match=r"mediasieve\[evaluate\]"):
        detect(tmp_path)


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "test-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"test-00000\.parquet"):
        detect(tmp_path)
