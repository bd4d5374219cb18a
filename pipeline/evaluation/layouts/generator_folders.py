"""Trees with one directory a generator: GenImage, Synthbuster and DRCT-2M."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.evaluation.layouts.base import DatasetError, Layout, Options
from pipeline.evaluation.layouts.class_folders import NUMBERED, PLAIN
from pipeline.evaluation.layouts.scan import holds_image, keyed_images, relative_key, subdirectories, walk_images
from pipeline.evaluation.sample import UNKNOWN, Sample

GENIMAGE_CLASSES = {"nature": False, "ai": True}
COCO_SPLITS = ("train2017", "val2017")
REAL_FOLDERS = frozenset({"real", "reals", "real_images", "nature"})
SYNTHBUSTER_GENERATORS = frozenset(
    [
        "dalle2",
        "dalle3",
        "firefly",
        "glide",
        "midjourney-v5",
        "stable-diffusion-1-3",
        "stable-diffusion-1-4",
        "stable-diffusion-2",
        "stable-diffusion-xl",
    ]
)


def _genimage_parts(root: Path) -> Iterator[tuple[str, Path]]:
    """(generator, directory that holds train and val): GEN itself or, as the archives unpack, GEN/NAME."""
    for generator in subdirectories(root):
        inner = subdirectories(root / generator)
        if "train" in inner or "val" in inner:
            yield generator, root / generator
        else:
            for name in inner:
                if name not in GENIMAGE_CLASSES and {"train", "val"} & set(subdirectories(root / generator / name)):
                    yield generator, root / generator / name


def _matches_genimage(root: Path) -> bool:
    return root.is_dir() and any(
        (part / split / name).is_dir()
        for _, part in _genimage_parts(root)
        for split in ("val", "train")
        for name in GENIMAGE_CLASSES
    )


def _read_genimage(root: Path, options: Options) -> Iterator[Sample]:
    for generator, part in _genimage_parts(root):
        for split in ("train", "val"):
            if options.split not in (None, split):
                continue
            for name, synthetic in GENIMAGE_CLASSES.items():
                directory = part / split / name
                for key, path in keyed_images(directory, root):
                    yield Sample(key, synthetic, path, generator, generator, generator if synthetic else UNKNOWN)


def _is_real_folder(name: str) -> bool:
    return name.lower() in REAL_FOLDERS or name.lower().startswith("raise")


def _matches_synthbuster(root: Path) -> bool:
    if not root.is_dir():
        return False
    names = subdirectories(root)
    known = any(name in SYNTHBUSTER_GENERATORS or _is_real_folder(name) for name in names)
    other = {*NUMBERED, *PLAIN, *GENIMAGE_CLASSES} - REAL_FOLDERS
    generators = [name for name in names if not _is_real_folder(name)]
    return known and not other & set(names) and any(holds_image(root / name) for name in generators)


def _read_synthbuster(root: Path, options: Options) -> Iterator[Sample]:
    folders = subdirectories(root)
    if options.reals is None and not any(map(_is_real_folder, folders)):
        raise DatasetError(
            f"{root}: no photographs; Synthbuster publishes them apart (RAISE-1k): pass their directory as `reals`, "
            f"or put them into {root / 'RAISE-1k'}"
        )
    if options.reals is not None:
        yield from _reals(options.reals)
    for name in folders:
        synthetic = not _is_real_folder(name)
        for path in walk_images(root / name):
            yield Sample(relative_key(path, root), synthetic, path, name, name, name if synthetic else UNKNOWN)


def _reals(directory: Path) -> Iterator[Sample]:
    source = directory.resolve().name
    for path in walk_images(directory):
        yield Sample(f"reals/{relative_key(path, directory)}", False, path, source, source)


def _drct_folders(root: Path) -> list[Path]:
    """Directories that hold train2017 or val2017, at the root or in its subdirectory DRCT-2M."""
    above = [root, root / "DRCT-2M"] if (root / "DRCT-2M").is_dir() else [root]
    return [
        directory / name
        for directory in above
        for name in subdirectories(directory)
        if any((directory / name / split).is_dir() for split in COCO_SPLITS)
    ]


def _is_coco(directory: Path) -> bool:
    return "coco" in directory.name.lower()


def _matches_drct(root: Path) -> bool:
    return root.is_dir() and any(not _is_coco(folder) for folder in _drct_folders(root))


def _read_drct(root: Path, options: Options) -> Iterator[Sample]:
    """A generated image is paired with the MSCOCO photograph of the same number, whose caption made it."""
    folders = _drct_folders(root)
    reals = options.reals or next(filter(_is_coco, folders), None)
    if reals is None:
        raise DatasetError(f"{root}: no MSCOCO directory with {COCO_SPLITS}; pass the one you have as `reals`")
    prefix = "reals" if options.reals else relative_key(reals, root)
    for split in COCO_SPLITS:
        if options.split not in (None, split):
            continue
        keys: dict[str, str] = {}
        for key, path in keyed_images(reals / split, reals):
            keys[path.stem] = f"{prefix}/{key}"
            yield Sample(keys[path.stem], False, path, "MSCOCO", path.stem)
        for folder in folders:
            if not _is_coco(folder) and (folder / split).is_dir():
                yield from _drct_generated(root, folder / split, folder.name, keys)


def _drct_generated(root: Path, directory: Path, generator: str, keys: dict[str, str]) -> Iterator[Sample]:
    lora = "lora" if "lora" in generator.lower() else ""
    for key, path in keyed_images(directory, root):
        yield Sample(
            key,
            True,
            path,
            source=generator,
            group=path.stem,
            generator=generator,
            adapter_type=lora,
            paired_with=keys.get(path.stem, ""),
        )


GENIMAGE = Layout("genimage", "GEN/[NAME/]train,val/ai,nature", _matches_genimage, _read_genimage, takes_split=True)
SYNTHBUSTER = Layout(
    "synthbuster",
    "one directory a generator, photographs in RAISE* or real, or apart (B-Free alike)",
    _matches_synthbuster,
    _read_synthbuster,
    takes_reals=True,
)
DRCT_2M = Layout(
    "drct_2m",
    "[DRCT-2M/]GEN/train2017,val2017 with MSCOCO/train2017,val2017 beside or apart",
    _matches_drct,
    _read_drct,
    takes_reals=True,
    takes_split=True,
)
