"""Directories in a fixed order, with one directory's names in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.evaluation.layouts.base import DatasetError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def subdirectories(directory: Path) -> list[str]:
    """Names of the directories directly in `directory`, sorted; hidden ones and `__MACOSX` left out."""
    return sorted(name for name, is_dir in _entries(directory) if is_dir)


def image_names(directory: Path) -> list[str]:
    """Names of the image files directly in `directory`, sorted."""
    return sorted(name for name, is_dir in _entries(directory) if not is_dir and _is_image(name))


def keyed_images(directory: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """(key, path) of each image directly in `directory`, by name; none where there is no such directory."""
    if directory.is_dir():
        prefix = relative_key(directory, root)
        for name in image_names(directory):
            yield f"{prefix}/{name}", directory / name


def holds_image(directory: Path) -> bool:
    """Whether at least one image file lies directly in `directory`."""
    return any(not is_dir and _is_image(name) for name, is_dir in _entries(directory))


def walk_images(directory: Path) -> Iterator[Path]:
    """Every image file below `directory`: a directory's own first, then its subdirectories by name."""
    files, folders = [], []
    for name, is_dir in _entries(directory):
        if is_dir:
            folders.append(name)
        elif _is_image(name):
            files.append(name)
    for name in sorted(files):
        yield directory / name
    del files
    for name in sorted(folders):
        yield from walk_images(directory / name)


def files_named(directory: Path, suffix: str) -> list[Path]:
    """Files directly in `directory` that end in `suffix`, sorted."""
    return [
        directory / name for name in sorted(n for n, is_dir in _entries(directory) if not is_dir) if _ends(name, suffix)
    ]


def relative_key(path: Path, root: Path) -> str:
    """The path below `root` with forward slashes: a sample's key on every system."""
    return path.relative_to(root).as_posix()


def _entries(directory: Path) -> Iterator[tuple[str, bool]]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    yield entry.name, entry.is_dir()
    except OSError as error:
        raise DatasetError(f"{directory}: {error.strerror}; give a directory that can be read") from error


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _ends(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix)
