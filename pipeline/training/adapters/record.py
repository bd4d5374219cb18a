"""The bench's manifest on disk: images first, then their lines, so that a run that was cut off goes on."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.media.encode import Pixels

MANIFEST = "manifest.jsonl"


class BenchRow(BaseModel):
    """An image of the bench. Photographs have no base; base-model images no adapter.

    `stack` names the trained adapters that act in it and `scale` theirs; `paired_with` is the base-model image of
    the same prompt and seed, and for that one the photograph of the same prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    label: Literal["real", "ai"]
    base: str | None = None
    vae: str | None = None
    adapter_type: str | None = None
    rank: Annotated[int, Field(ge=1)] | None = None
    alpha: int | None = None
    scale: tuple[float, ...] = ()
    stack: tuple[str, ...] = ()
    sampler: str | None = None
    prompt_id: int | None = None
    seed: int | None = None
    adapter_id: str | None = None
    paired_with: str | None = None
    training_source: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class OtherOptions(Exception):
    """The bench below this directory was made with other options than the run that would go on with it."""


class ManifestDamaged(Exception):
    """A line of the manifest that is no row, other than a last one that was cut off."""


class Record:
    """Images and manifest below one directory; append-only, one writer."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.paths: set[str] = set()
        self._read()

    def has(self, path: str) -> bool:
        """Whether this image was written and listed."""
        return path in self.paths

    def add(self, images: Sequence[tuple[Pixels, dict[str, Any]]]) -> None:
        """Write images, uint8 (H, W, 3), as PNG, then their manifest lines at once; the facts lack the sha256."""
        rows = []
        for rgb, facts in images:
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, "PNG")
            data = buffer.getvalue()
            rows.append(BenchRow(**facts, sha256=hashlib.sha256(data).hexdigest()))
            write_whole(self.root / rows[-1].path, data)
        with (self.root / MANIFEST).open("a", encoding="utf-8") as file:
            file.write("".join(row.model_dump_json() + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
        self.paths |= {row.path for row in rows}

    def _read(self) -> None:
        """Takes up the listed images; a last line without its end is cut away, it is written anew.

        Raises:
            ManifestDamaged: another line that is no row.
        """
        path = self.root / MANIFEST
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            write_whole(path, whole.encode())
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = BenchRow.model_validate_json(line)
            except ValidationError as error:
                raise ManifestDamaged(f"{path} line {number}: {error.errors()[0]['msg']}; remove the line") from error
            if (self.root / row.path).is_file():
                self.paths.add(row.path)


def write_whole(path: Path, data: bytes) -> None:
    """All or nothing: through a file beside it that is renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)


def agree_on(path: Path, facts: dict[str, Any]) -> None:
    """Write what a run depends on beside its images, or check that an earlier run wrote the same.

    Raises:
        OtherOptions: the first fact that differs.
    """
    if not path.is_file():
        write_whole(path, (json.dumps(facts, indent=2) + "\n").encode())
        return
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in sorted(kept.keys() | facts.keys()):
        if kept.get(name) != facts.get(name):
            raise OtherOptions(f"{path}: {name} was {kept.get(name)}, now {facts.get(name)}; use another directory")
