"""Every layout by name, and which one a directory is."""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation.layouts import class_folders, csv_manifests, generator_folders, jsonl_manifests, parquet
from pipeline.evaluation.layouts.base import Dataset, DatasetError, Layout, Options

_LISTS = (
    jsonl_manifests.MANIFEST_JSONL,
    jsonl_manifests.ADAPTER_BENCH,
    csv_manifests.GRIP_CSV,
    csv_manifests.REALSTATS_CSV,
    csv_manifests.SPAI_CSV,
    parquet.COMMUNITY_FORENSICS,
    parquet.OPENFAKE,
)
"""A file that lists images decides before the names of directories do."""

_TREES = (
    generator_folders.GENIMAGE,
    class_folders.UNIVFD,
    class_folders.FORENSYNTHS,
    class_folders.AIGIBENCH,
    class_folders.WILDRF,
    class_folders.CHAMELEON,
    class_folders.COMMUNITY_FORENSICS_LOCAL,
    generator_folders.DRCT_2M,
    generator_folders.SYNTHBUSTER,
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (*_LISTS, *_TREES)}


def detect(root: Path) -> Layout:
    """The layout of a directory (or of a CSV, JSONL or parquet file).

    Raises:
        DatasetError: nothing there, no layout fits, or several do.
    """
    if not root.exists():
        raise DatasetError(f"{root}: no such file or directory; give the root of a dataset")
    for kind in (_LISTS, _TREES):
        found = [layout for layout in kind if layout.matches(root)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(layout.name for layout in found)
            raise DatasetError(f"{root}: reads as {names}; name the layout that you mean")
    raise DatasetError(f"{root}: no known layout; looked for\n{_listed()}\nname one of them, or write a manifest.jsonl")


def open_dataset(
    root: Path, layout: str | None = None, *, reals: Path | None = None, split: str | None = None
) -> Dataset:
    """A dataset to stream samples from.

    Args:
        root: a directory, or the one file that lists the images.
        layout: one of `LAYOUTS`; None detects it.
        reals: photographs that are kept apart (Synthbuster, DRCT-2M).
        split: only the images of this split.

    Raises:
        DatasetError: unknown layout, or an option that this layout does not know.
    """
    if layout is not None and layout not in LAYOUTS:
        raise DatasetError(f"no layout {layout!r}; there are\n{_listed()}")
    if not root.exists():
        raise DatasetError(f"{root}: no such file or directory; give the root of a dataset")
    chosen = detect(root) if layout is None else LAYOUTS[layout]
    if reals is not None and not chosen.takes_reals:
        raise DatasetError(f"{root}: layout {chosen.name} holds its own photographs; leave `reals` out")
    if reals is not None and not reals.is_dir():
        raise DatasetError(f"{reals}: no such directory; `reals` is where the photographs lie")
    if split is not None and not chosen.takes_split:
        raise DatasetError(f"{root}: layout {chosen.name} has no splits; leave `split` out, or give a subdirectory")
    return Dataset(root, chosen.name, Options(reals, split), chosen.read)


def _listed() -> str:
    return "\n".join(f"  {layout.name}: {layout.tree}" for layout in LAYOUTS.values())
