from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.training.dataset import Labelled
from pipeline.training.splits import FINAL, FOLDS, LAST_FOLD, absent_for, build, decoder_family, main


def row(source, generator="", *, packaged=False, family="", number=0):
    digest = hashlib.sha256(f"{source}{generator}{number}".encode()).hexdigest()
    return Labelled(Path("x"), digest, bool(generator), source, False, generator, family, packaged)


@pytest.mark.parametrize(
    ("generator", "family"),
    [
        ("SDXL-Turbo", "SDXL"),
        ("Kolors", "SDXL"),
        ("SD3-medium", "SD3"),
        ("FLUX.1-dev", "FLUX"),
        ("SD1.5 finetune (animatrix_v20.safetensors)", "SD1/2"),
        ("Cosmos-Predict2-2B", "Cosmos-Predict2-2B"),
    ],
)
def test_labels_of_one_decoder_are_one_family(generator, family):
    assert decoder_family(generator) == family


def test_a_fold_holds_out_a_source_and_a_family():
    rows = [row("BIDS/BSDS500"), row("somebody/pictures", "SD1.4"), row("somebody/pictures", "FLUX.1-dev")]
    folds = {r.unit: r.fold for r in build(rows).rows}
    assert folds == {"BIDS/BSDS500": 1, "SD1/2": 1, "FLUX": 2}


def test_a_drawn_share_of_packaged_generators_and_sources_is_final():
    generated = [row("p", f"generator {n}", packaged=True, family="own") for n in range(200)]
    photographs = [row(f"package {n}", packaged=True) for n in range(200)]
    split = build([*photographs, *generated]).rows
    for synthetic in (True, False):
        final = sum(r.fold == FINAL for r in split if r.synthetic is synthetic)
        assert 40 <= final <= 80
    assert {r.fold for r in split if r.synthetic} == {FINAL, LAST_FOLD}
    assert {r.fold for r in split if not r.synthetic} == {FINAL, *range(FOLDS)}


def test_what_an_opened_final_split_held_is_trained_on():
    rows = [row("deb mate-backgrounds", packaged=True), row("p", "Qwen-Image", packaged=True, family="Qwen-Image/Wan")]
    assert all(r.fold != FINAL for r in build(rows).rows)


def test_one_package_is_in_one_fold():
    rows = [row("pkg", packaged=True, number=n) for n in range(30)]
    assert len({r.fold for r in build(rows).rows}) == 1


def test_what_a_fold_bundle_must_not_see():
    split = build([row("BIDS/BSDS500"), row("somebody/pictures", "SD1.4"), row("somebody/pictures", "FLUX.1-dev")]).rows
    absent = absent_for(split, 1)
    assert absent == {r.sha256 for r in split}  # the FLUX image is of a repository that appears in fold 1
    assert absent_for(split, None) == set()


def test_a_source_without_a_fold_is_named():
    with pytest.raises(ValueError, match="new/photographs: no fold"):
        build([row("new/photographs")])


def test_check_notices_other_data(tmp_path):
    line = {"path": "a.png", "sha256": "a" * 64, "label": "real", "source": "BIDS/BSDS500", "lora": "no"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    split = tmp_path / "split.json"
    main([str(tmp_path), "--out", str(split)])
    main([str(tmp_path), "--check", str(split)])
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**line, "sha256": "b" * 64}) + "\n")
    with pytest.raises(SystemExit, match="differ"):
        main([str(tmp_path), "--check", str(split)])
