"""Which previews of packages of workflow templates become labelled images, and what made them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.training.dataset import read_manifest
from pipeline.training.packaged_images import PackagesIncomplete, extract

JSON = "comfyui_workflow_templates_json/templates/"
MEDIA = "comfyui_workflow_templates_media_image/templates/"


def picture(shade: int, size: int = 300, frames: int = 1) -> bytes:
    buffer = io.BytesIO()
    images = [Image.new("RGB", (size, size), (20 * shade, 80 * index, 0)) for index in range(frames)]
    images[0].save(buffer, "WEBP", save_all=frames > 1, append_images=images[1:])
    return buffer.getvalue()


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "mediaType": "image", "models": ["FLUX", "Model"], "tags": [], "openSource": True, **fields}


def workflow(vae: str) -> bytes:
    inner = {"type": "VAELoader", "widgets_values": [vae]}
    return json.dumps({"definitions": {"subgraphs": [{"nodes": [inner]}]}}).encode()


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def packages(tmp_path: Path) -> list[Path]:
    index = [
        {
            "title": "Image",
            "templates": [
                entry("plain"),
                entry("pair"),
                entry("closed", openSource=False, logos=[{"provider": "Vendor"}]),
                entry("upscaled", tags=["Image Upscale"]),
                entry("collage", thumbnail=["thumbnail/collage.png"]),
                entry("small"),
                entry("moving"),
            ],
        },
        {"title": "Audio", "templates": [entry("song")]},
    ]
    workflows = wheel(
        tmp_path / "json.whl",
        {
            JSON + "index.json": json.dumps(index).encode(),
            JSON + "plain.json": workflow("ae.safetensors"),
            JSON + "pair.json": workflow("qwen_image_vae.safetensors"),
        },
    )
    media = wheel(
        tmp_path / "media.whl",
        {
            MEDIA + "plain-1.webp": picture(1),
            MEDIA + "pair-1.webp": picture(2),
            MEDIA + "pair-2.webp": picture(3),
            MEDIA + "closed-1.webp": picture(4),
            MEDIA + "upscaled-1.webp": picture(5),
            MEDIA + "collage-1.webp": picture(6),
            MEDIA + "small-1.webp": picture(7, size=100),
            MEDIA + "moving-1.webp": picture(8, frames=3),
            MEDIA + "song-1.webp": picture(9),
            MEDIA + "unheard_of-1.webp": picture(10),
        },
    )
    return [workflows, media]


def test_only_whole_outputs_are_kept_with_their_decoder_family(tmp_path: Path) -> None:
    rows, excluded = extract(packages(tmp_path), tmp_path / "out")

    assert {Path(row["path"]).stem: row["decoder_family"] for row in rows} == {
        "plain-1": "FLUX",
        "pair-1": "Qwen-Image/Wan",
        "closed-1": "closed: Vendor",
    }
    assert excluded["pair-2"].startswith("input")
    assert excluded["moving-1"] == "animated preview"
    assert "px" in excluded["small-1"]
    assert "Audio" in excluded["song-1"]
    assert "Image Upscale" in excluded["upscaled-1"]
    assert "by hand" in excluded["collage-1"]
    assert "index" in excluded["unheard_of-1"]


def test_the_manifest_reads_as_training_data_with_original_bytes(tmp_path: Path) -> None:
    extract(packages(tmp_path), tmp_path / "out")

    rows = read_manifest(tmp_path / "out")

    assert all(row.synthetic for row in rows)
    assert (tmp_path / "out" / "images" / "pair-1.webp").read_bytes() == picture(2)
    assert {row.source for row in rows} == {"comfyui-workflow-templates: Model"}


def test_an_open_model_with_an_unknown_decoder_is_an_error_not_a_guess(tmp_path: Path) -> None:
    index = [{"title": "Image", "templates": [entry("plain")]}]
    package = wheel(
        tmp_path / "all.whl",
        {
            JSON + "index.json": json.dumps(index).encode(),
            JSON + "plain.json": workflow("brand_new_vae.safetensors"),
            MEDIA + "plain-1.webp": picture(1),
        },
    )

    with pytest.raises(KeyError, match="brand_new_vae"):
        extract([package], tmp_path / "out")


def test_missing_packages_are_named(tmp_path: Path) -> None:
    workflows, media = packages(tmp_path)
    with pytest.raises(PackagesIncomplete, match="templates-json"):
        extract([media], tmp_path / "out")
    with pytest.raises(PackagesIncomplete, match="templates-media"):
        extract([workflows], tmp_path / "out")
    with pytest.raises(PackagesIncomplete, match="neither"):
        extract([tmp_path / "nothing.whl"], tmp_path / "out")
