"""A bundle: one directory that holds everything that defines a verdict, each file under its sha256.

    python -m pipeline.detection.bundle verify DIR
    python -m pipeline.detection.bundle seal DIR [--spectral FILE]

Model files are ONNX, safetensors, npz and JSON; nothing is unpickled.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pipeline.detection.calibration import Calibration
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.detection.policy import Policy, PolicyError
from schemas.types import SchemaVersion, Sha256, ShortText, Version

MANIFEST_FILE = "bundle.json"
MANIFEST_MAJOR = 1
DEFAULT_BUNDLE = Path(__file__).parent / "bundles" / "default"

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Flat: no directories inside a bundle, no way out of it."""

_SETTINGS = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BundleError(Exception):
    """A bundle that must not be used; the text names the file and the way out."""


class FileEntry(BaseModel):
    """What a file must be, byte for byte."""

    model_config = _SETTINGS

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class ClassifierEntry(BaseModel):
    """Tier 1. `calibration` belongs to the weights in `file`."""

    model_config = _SETTINGS

    model: ShortText
    file: FileName
    crops: CropSpec
    calibration: Calibration


class SpectralEntry(BaseModel):
    """Tier 2's reference distributions."""

    model_config = _SETTINGS

    file: FileName


class MllmEntry(BaseModel):
    """Tier 3. Both prompts or neither: without them the package's own are used; `calibration` is a map to P."""

    model_config = _SETTINGS

    prompt_reason: FileName | None = None
    prompt_report: FileName | None = None
    calibration: FileName | None = None

    @model_validator(mode="after")
    def _prompts_come_together(self) -> Self:
        if (self.prompt_reason is None) != (self.prompt_report is None):
            raise ValueError("prompt_reason and prompt_report belong together: name both or neither")
        return self

    def roles(self) -> dict[str, str]:
        """Field -> file name."""
        return {f"mllm.{field}": name for field, name in self.model_dump(exclude_none=True).items()}


class Manifest(BaseModel):
    """`bundle.json`. `prior` is the share of synthetic media at which scores are probabilities.

    `training` lists the images that the bundle was made from by digest and perceptual hash, so that an evaluation
    can refuse them.
    """

    model_config = _SETTINGS

    schema_version: SchemaVersion = "1.0"
    version: Version
    prior: Annotated[float, Field(gt=0.0, lt=1.0)]
    created_at: AwareDatetime
    licence: ShortText
    policy: FileName
    classifier: ClassifierEntry
    spectral: SpectralEntry | None = None
    mllm: MllmEntry | None = None
    training: FileName | None = None
    files: dict[FileName, FileEntry]

    @model_validator(mode="after")
    def _major_is_known(self) -> Self:
        if int(self.schema_version.partition(".")[0]) != MANIFEST_MAJOR:
            raise ValueError(f"schema_version {self.schema_version}: this release reads {MANIFEST_MAJOR}.x")
        return self

    def roles(self) -> dict[str, str]:
        """Field -> file name, for every field that names a file."""
        named = {"policy": self.policy, "classifier.file": self.classifier.file}
        if self.spectral:
            named["spectral.file"] = self.spectral.file
        if self.mllm:
            named |= self.mllm.roles()
        return named | ({"training": self.training} if self.training else {})


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Make one with `load`."""

    directory: Path
    manifest: Manifest
    policy: Policy

    @classmethod
    def load(cls, path: Path | None = None) -> Bundle:
        """Read a bundle directory and check every byte of it.

        Args:
            path: the directory; None for the bundle that this package ships.

        Raises:
            BundleError: a file is missing, changed, unlisted or not a plain file, or the manifest or the
                policy is invalid.
        """
        directory = DEFAULT_BUNDLE if path is None else path
        manifest = read_manifest(directory)
        _check_files(directory, manifest)
        try:
            policy = Policy.load(directory / manifest.policy)
        except PolicyError as error:
            raise BundleError(str(error)) from error
        if policy.fusion.prior != manifest.prior:
            raise BundleError(
                f"{directory / manifest.policy}: fusion.prior {policy.fusion.prior} differs from prior"
                f" {manifest.prior} of {MANIFEST_FILE}; set both alike and run `bundle seal {directory}`"
            )
        return cls(directory, manifest, policy)

    @property
    def version(self) -> str:
        """Named in every decision."""
        return self.manifest.version

    def path(self, name: str) -> Path:
        """Where a listed file lies.

        Raises:
            BundleError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.directory / name}: not in `files` of {MANIFEST_FILE}; {_way_out(self.directory)}")
        return self.directory / name


def read_manifest(directory: Path) -> Manifest:
    """Parse `bundle.json`, without a look at the other files.

    Raises:
        BundleError: absent or invalid, with the field.
    """
    path = directory / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{path}: {error}; give the path of a bundle directory") from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `bundle.json`, files in order of their names."""
    ordered = manifest.model_copy(update={"files": dict(sorted(manifest.files.items()))})
    (directory / MANIFEST_FILE).write_text(ordered.model_dump_json(indent=2) + "\n", encoding="utf-8")


def seal(directory: Path, spectral: str | None = None) -> Manifest:
    """List every file of the directory with its digest, and verify the result.

    Args:
        directory: holds `bundle.json` and the files.
        spectral: name of the file with the spectral references; None keeps what the manifest says.

    Raises:
        BundleError: the result would not load.
    """
    manifest = read_manifest(directory)
    files = {p.name: _entry(p) for p in sorted(directory.iterdir()) if p.name != MANIFEST_FILE}
    content = manifest.model_dump() | {"files": {name: entry.model_dump() for name, entry in files.items()}}
    if spectral is not None:
        content["spectral"] = {"file": spectral}
    try:
        sealed = Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{directory / MANIFEST_FILE}: {error}") from error
    write_manifest(directory, sealed)
    return Bundle.load(directory).manifest


def _check_files(directory: Path, manifest: Manifest) -> None:
    for field, name in manifest.roles().items():
        if name not in manifest.files:
            raise BundleError(f"{directory / name}: named by {field} but not in `files`; {_way_out(directory)}")
    present = {p.name for p in directory.iterdir()} - {MANIFEST_FILE}
    for name in sorted(present - manifest.files.keys()):
        raise BundleError(f"{directory / name}: not in `files` of {MANIFEST_FILE}; remove it, or {_way_out(directory)}")
    for name, wanted in manifest.files.items():
        path = directory / name
        if name not in present:
            raise BundleError(f"{path}: listed but absent; fetch the bundle again, then {_way_out(directory)}")
        if _entry(path) != wanted:
            raise BundleError(f"{path}: differs from its sha256; fetch the bundle again, then {_way_out(directory)}")


def _entry(path: Path) -> FileEntry:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path}: a bundle holds plain files only; remove it, then {_way_out(path.parent)}")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return FileEntry(sha256=digest, bytes=file.tell())
    except OSError as error:
        raise BundleError(f"{path}: {error}; {_way_out(path.parent)}") from error


def _way_out(directory: Path) -> str:
    return f"run `bundle verify {directory}`"


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify or seal one bundle; exits with status 1 and the reason when it is not usable."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.detection.bundle")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("verify").add_argument("directory", type=Path)
    sealing = commands.add_parser("seal")
    sealing.add_argument("directory", type=Path)
    sealing.add_argument("--spectral", metavar="FILE", help="name of the spectral reference inside the bundle")
    options = parser.parse_args(arguments)
    try:
        if options.command == "seal":
            manifest = seal(options.directory, options.spectral)
        else:
            manifest = Bundle.load(options.directory).manifest
    except BundleError as error:
        raise SystemExit(f"{error}") from error
    sys.stdout.write(f"{manifest.version}: {len(manifest.files)} files\n")


if __name__ == "__main__":
    main()
