from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.training.dataset import Labelled
from pipeline.training.splits import FINAL, LAST_FOLD, build, decoder_family, main


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


def test_packaged_photographs_and_a_drawn_share_of_packaged_generators_are_final():
    photograph = row("scikit-image data", packaged=True)
    generated = [row("p", f"generator {n}", packaged=True, family="own") for n in range(200)]
    split = build([photograph, *generated]).rows
    by_source = {r.source: r.fold for r in split}
    assert by_source["scikit-image data"] == FINAL
    final = sum(r.fold == FINAL for r in split if r.synthetic)
    assert 40 <= final <= 80
    assert {r.fold for r in split if r.synthetic} == {FINAL, LAST_FOLD}


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
