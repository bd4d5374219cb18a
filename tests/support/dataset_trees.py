"""Every dataset layout in miniature: a few files of known bytes, and what a reader must make of them."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.training.adapters.record import BenchRow


@dataclass(frozen=True)
class Expected:
    """One sample: the bytes that were written, and its labels."""

    data: bytes
    synthetic: bool
    generator: str
    source: str


@dataclass(frozen=True)
class Tree:
    """`build` writes the tree below a directory and says what it holds, by key; `split` selects `of_split` keys."""

    layout: str
    build: Callable[[Path], dict[str, Expected]]
    split: str | None = None
    of_split: frozenset[str] = field(default_factory=frozenset)
    needs_pyarrow: bool = False


def image(path: Path) -> bytes:
    """Write distinct bytes: readers of layouts never decode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = f"image {path.parent.name}/{path.name}".encode()
    path.write_bytes(data)
    return data


def _tree(root: Path, files: dict[str, tuple[bool, str, str]]) -> dict[str, Expected]:
    return {key: Expected(image(root / key), *labels) for key, labels in files.items()}


def genimage(root: Path) -> dict[str, Expected]:
    return _tree(
        root,
        {
            "ADM/imagenet_ai_0508_adm/train/nature/n1.JPEG": (False, "unknown", "ADM"),
            "ADM/imagenet_ai_0508_adm/train/ai/1_adm.PNG": (True, "ADM", "ADM"),
            "ADM/imagenet_ai_0508_adm/val/nature/n2.JPEG": (False, "unknown", "ADM"),
            "ADM/imagenet_ai_0508_adm/val/ai/2_adm.PNG": (True, "ADM", "ADM"),
            "Midjourney/val/nature/n3.JPEG": (False, "unknown", "Midjourney"),
            "Midjourney/val/ai/3.png": (True, "Midjourney", "Midjourney"),
        },
    )


def univfd(root: Path) -> dict[str, Expected]:
    return _tree(
        root,
        {
            "diffusion/ldm_200/0_real/1.png": (False, "unknown", "diffusion/ldm_200"),
            "diffusion/ldm_200/1_fake/1.png": (True, "ldm_200", "diffusion/ldm_200"),
            "gan/progan/cat/0_real/1.png": (False, "unknown", "gan/progan"),
            "gan/progan/cat/1_fake/1.png": (True, "progan", "gan/progan"),
        },
    )


def forensynths(root: Path) -> dict[str, Expected]:
    return _tree(
        root,
        {
            "test/deepfake/0_real/1.png": (False, "unknown", "deepfake"),
            "test/deepfake/1_fake/1.png": (True, "deepfake", "deepfake"),
            "test/progan/train/0_real/1.png": (False, "unknown", "progan"),
            "test/progan/train/1_fake/1.png": (True, "progan", "progan"),
            "val/progan/cat/1_fake/2.png": (True, "progan", "progan"),
        },
    )


def aigibench(root: Path) -> dict[str, Expected]:
    return _tree(
        root,
        {
            "CommunityAI/0_real/a.jpg": (False, "unknown", "CommunityAI"),
            "CommunityAI/1_fake/a.jpg": (True, "CommunityAI", "CommunityAI"),
            "SD3/0_real/b.webp": (False, "unknown", "SD3"),
            "SD3/1_fake/b.webp": (True, "SD3", "SD3"),
        },
    )


def wildrf(root: Path) -> dict[str, Expected]:
    return _tree(
        root,
        {
            "test/facebook/0_real/1.jpg": (False, "unknown", "facebook"),
            "test/reddit/0_real/1.jpg": (False, "unknown", "reddit"),
            "test/reddit/1_fake/1.jpg": (True, "unknown", "reddit"),
            "train/reddit/1_fake/2.jpg": (True, "unknown", "reddit"),
        },
    )


def chameleon(root: Path) -> dict[str, Expected]:
    name = root.name
    return _tree(root, {"test/0_real/1.jpg": (False, "unknown", name), "test/1_fake/1.jpg": (True, "unknown", name)})


def community_forensics_local(root: Path) -> dict[str, Expected]:
    return _tree(
        root,
        {"flux-dev/real/1.jpg": (False, "unknown", "flux-dev"), "flux-dev/fake/1.jpg": (True, "flux-dev", "flux-dev")},
    )


def synthbuster(root: Path) -> dict[str, Expected]:
    return _tree(
        root,
        {
            "RAISE-1k/r0.TIF": (False, "unknown", "RAISE-1k"),
            "dalle3/r0.png": (True, "dalle3", "dalle3"),
            "flux/r0.png": (True, "flux", "flux"),
        },
    )


def drct_2m(root: Path) -> dict[str, Expected]:
    return _tree(
        root,
        {
            "MSCOCO/train2017/000000000009.jpg": (False, "unknown", "MSCOCO"),
            "MSCOCO/val2017/000000000139.jpg": (False, "unknown", "MSCOCO"),
            "DRCT-2M/lcm-lora-sdxl/val2017/000000000139.png": (True, "lcm-lora-sdxl", "lcm-lora-sdxl"),
            "DRCT-2M/sdxl-turbo/train2017/000000000009.png": (True, "sdxl-turbo", "sdxl-turbo"),
        },
    )


def _csv(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def grip_csv(root: Path) -> dict[str, Expected]:
    real, fake = image(root / "real/1.jpg"), image(root / "dalle3/1.jpg")
    _csv(root / "list.csv", "url,filename,typ", "u,real/1.jpg,real", "u,dalle3/1.jpg,dalle3")
    return {
        "list:real/1.jpg": Expected(real, False, "unknown", "real"),
        "list:dalle3/1.jpg": Expected(fake, True, "dalle3", "dalle3"),
    }


def spai_csv(root: Path) -> dict[str, Expected]:
    real, fake = image(root / "coco/1.jpg"), image(root / "sd3/1.png")
    _csv(root / "coco.csv", "image,class,split", "coco/1.jpg,0,test")
    _csv(root / "sd3.csv", "image,class,split", "sd3/1.png,1,val")
    return {
        "coco:coco/1.jpg": Expected(real, False, "unknown", "coco"),
        "sd3:sd3/1.png": Expected(fake, True, "sd3", "sd3"),
    }


def realstats_csv(root: Path) -> dict[str, Expected]:
    real, fake = image(root / "COCO/val/1.jpg"), image(root / "glide/1.png")
    _csv(root / "test_real_paths.csv", "dataset_name,path", "COCO,val/1.jpg")
    _csv(root / "test_fake_paths.csv", "dataset_name,path", "glide,glide/1.png")
    return {
        "COCO:val/1.jpg": Expected(real, False, "unknown", "COCO"),
        "glide:glide/1.png": Expected(fake, True, "glide", "glide"),
    }


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def manifest(root: Path) -> dict[str, Expected]:
    real, fake = image(root / "real/1.jpg"), image(root / "ai/1.png")
    _jsonl(
        root / "manifest.jsonl",
        [
            {"path": "real/1.jpg", "label": "real", "source": "kodak", "generator": None, "lora": None, "note": "x"},
            {
                "path": "ai/1.png",
                "label": "ai",
                "source": "gallery",
                "generator": "SDXL",
                "lora": "yes",
                "sha256": hashlib.sha256(fake).hexdigest(),
            },
        ],
    )
    return {
        "real/1.jpg": Expected(real, False, "unknown", "kodak"),
        "ai/1.png": Expected(fake, True, "SDXL", "gallery"),
    }


ADAPTER_IMAGE = "tiny/lora/r04/a0/p1-s0.png"


def adapter_bench(root: Path) -> dict[str, Expected]:
    """Rows as the generator of the bench writes them."""
    files = {"photographs/1.png": None, "tiny/none/r00/base/p1-s0.png": "base", ADAPTER_IMAGE: "a0"}
    rows, expected = [], {}
    for path, adapter in files.items():
        data = image(root / path)
        sha256 = hashlib.sha256(data).hexdigest()
        if adapter is None:
            row = BenchRow(path=path, label="real", prompt_id=1, sha256=sha256)
        else:
            row = BenchRow(
                path=path,
                label="ai",
                base="tiny",
                vae="tiny-vae",
                adapter_type="none" if adapter == "base" else "lora",
                rank=None if adapter == "base" else 4,
                prompt_id=1,
                seed=0,
                adapter_id=None if adapter == "base" else adapter,
                paired_with="photographs/1.png" if adapter == "base" else "tiny/none/r00/base/p1-s0.png",
                sha256=sha256,
            )
        rows.append(row.model_dump(mode="json"))
        labels = ("unknown", "photographs") if adapter is None else ("tiny", "tiny")
        expected[path] = Expected(data, adapter is not None, *labels)
    _jsonl(root / "manifest.jsonl", rows)
    return expected


def _parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    # Not everyone has it, and without it there are no types to check either.
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns), path, row_group_size=7)


def community_forensics(root: Path) -> dict[str, Expected]:
    data = [f"image {row}".encode() for row in range(40)]
    _parquet(
        root / "data/PublicEval-00000-of-00002.parquet",
        {
            "image_data": data,
            "label": [row % 2 for row in range(40)],
            "model_name": ["coco" if row % 2 == 0 else "kandinsky" for row in range(40)],
            "real_source": ["COCO" if row % 2 == 0 else None for row in range(40)],
            "prompt": [None] * 40,
        },
    )
    _parquet(
        root / "data/Systematic-00000-of-00001.parquet",
        {"image_data": [b"one"], "label": [1], "model_name": ["sd15-lora"]},
    )
    expected = {
        f"data/PublicEval-00000-of-00002.parquet#{row}": Expected(
            data[row], row % 2 == 1, *(("kandinsky", "kandinsky") if row % 2 else ("unknown", "COCO"))
        )
        for row in range(40)
    }
    expected["data/Systematic-00000-of-00001.parquet#0"] = Expected(b"one", True, "sd15-lora", "sd15-lora")
    return expected


def openfake(root: Path) -> dict[str, Expected]:
    _parquet(
        root / "test-00000-of-00001.parquet",
        {
            "image": [{"bytes": b"a photograph", "path": "1.jpg"}, {"bytes": b"made", "path": "2.png"}],
            "prompt": ["a dog", "a dog"],
            "label": ["real", "fake"],
            "model": ["real", "flux.1-dev"],
        },
    )
    return {
        "test-00000-of-00001.parquet#0": Expected(b"a photograph", False, "unknown", "real"),
        "test-00000-of-00001.parquet#1": Expected(b"made", True, "flux.1-dev", "flux.1-dev"),
    }


TREES = (
    Tree(
        "genimage",
        genimage,
        "train",
        frozenset({"ADM/imagenet_ai_0508_adm/train/nature/n1.JPEG", "ADM/imagenet_ai_0508_adm/train/ai/1_adm.PNG"}),
    ),
    Tree("univfd", univfd),
    Tree("forensynths", forensynths, "val", frozenset({"val/progan/cat/1_fake/2.png"})),
    Tree("aigibench", aigibench),
    Tree("wildrf", wildrf, "train", frozenset({"train/reddit/1_fake/2.jpg"})),
    Tree("chameleon", chameleon),
    Tree("community_forensics_local", community_forensics_local),
    Tree("synthbuster", synthbuster),
    Tree(
        "drct_2m",
        drct_2m,
        "val2017",
        frozenset({"MSCOCO/val2017/000000000139.jpg", "DRCT-2M/lcm-lora-sdxl/val2017/000000000139.png"}),
    ),
    Tree("grip_csv", grip_csv),
    Tree("spai_csv", spai_csv, "val", frozenset({"sd3:sd3/1.png"})),
    Tree("realstats_csv", realstats_csv, "test", frozenset({"COCO:val/1.jpg", "glide:glide/1.png"})),
    Tree("manifest", manifest),
    Tree("adapter_bench", adapter_bench),
    Tree(
        "community_forensics",
        community_forensics,
        "Systematic",
        frozenset({"data/Systematic-00000-of-00001.parquet#0"}),
        needs_pyarrow=True,
    ),
    Tree(
        "openfake",
        openfake,
        "test",
        frozenset({"test-00000-of-00001.parquet#0", "test-00000-of-00001.parquet#1"}),
        needs_pyarrow=True,
    ),
)
