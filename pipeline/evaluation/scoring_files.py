"""The files of a scoring run: what it is, its rows so far, and where to go on after a stop."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.evaluation.sample import Sample
from pipeline.evaluation.score_row import ScoresError

SCORES_FILE = "scores.jsonl"
PART_FILE = "scores.part.jsonl"
OVERLAP_FILE = "training_overlap.jsonl"
RUN_FILE = "run.json"
TIMES_FILE = "times.json"
STAGES = ("decode", "classifier", "spectral")


@dataclass(slots=True)
class Progress:
    """Counts so far: images scored or skipped, those that failed or were refused, and stage times in milliseconds."""

    images: int = 0
    failed: int = 0
    refused: int = 0
    times_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    timed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))

    def add_times(self, spent_ms: Mapping[str, float]) -> None:
        """Count one image's milliseconds by stage."""
        for stage, spent in spent_ms.items():
            self.times_ms[stage] += spent
            self.timed[stage] += 1

    def mean_ms(self) -> dict[str, float]:
        """Milliseconds of one image in each stage; empty when a stage was never timed."""
        if not all(self.timed.values()):
            return {}
        return {stage: total / self.timed[stage] for stage, total in self.times_ms.items()}


def check_same_run(out_dir: Path, wanted: Mapping[str, Any]) -> None:
    """Write what this run is, or compare with what the directory says.

    Raises:
        ScoresError: it holds the scores of another bundle, dataset or choice of variants.
    """
    path = out_dir / RUN_FILE
    if not path.exists():
        path.write_text(json.dumps(dict(wanted), indent=2) + "\n", encoding="utf-8")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    different = [name for name, value in wanted.items() if found.get(name) != value]
    if different:
        raise ScoresError(f"{path}: another run ({', '.join(different)} differ); give an empty --out directory")


def remaining(
    samples: Iterator[Sample], part: Path, overlaps: Path, rows_of: Mapping[bool, int], progress: Progress
) -> Iterator[Sample]:
    """The samples that the files do not have yet; a row that was cut off when the run died is removed.

    Raises:
        ScoresError: the files do not follow the dataset, which has changed since.
    """
    _cut_to_whole_images(part, rows_of)
    refused = (line for line in _objects(overlaps) if line["refused"])
    done = _objects(part)
    next_refused, next_row = next(refused, None), next(done, None)
    while next_row is not None or next_refused is not None:
        sample = next(samples, None)
        if sample is None:
            raise ScoresError(f"{part}: has images that the dataset lacks; give an empty --out directory")
        if next_row is not None and next_row["key"] == sample.key:
            for _ in range(rows_of[sample.synthetic] - 1):
                next(done)
            progress.images, progress.failed = progress.images + 1, progress.failed + (next_row["status"] == "failed")
            next_row = next(done, None)
        elif next_refused is not None and next_refused["key"] == sample.key:
            progress.images, progress.refused = progress.images + 1, progress.refused + 1
            next_refused = next(refused, None)
        else:
            raise ScoresError(f"{part}: the dataset has {sample.key} where the file has not; give an empty --out")
    yield from samples


def former_progress(out_dir: Path) -> Progress:
    """Stage times of the runs before; images are counted again from the files."""
    path = out_dir / TIMES_FILE
    if not path.exists():
        return Progress()
    former = Progress(**json.loads(path.read_text(encoding="utf-8")))
    return replace(former, images=0, failed=0, refused=0)


def overlaps(out_dir: Path) -> tuple[int, int]:
    """How many images of the bundle's training list were (refused, scored all the same)."""
    refused: set[str] = set()
    scored: set[str] = set()
    for line in _objects(out_dir / OVERLAP_FILE):
        (refused if line["refused"] else scored).add(line["key"])
    return len(refused), len(scored)


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """One object a line; a last line that was cut off is left out."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.endswith("\n"))


def _cut_to_whole_images(path: Path, rows_of: Mapping[bool, int]) -> None:
    """Remove the rows of a last image that does not have all of its rows."""
    if not path.exists():
        return
    end = position = rows = 0
    with path.open("rb") as lines:
        for line in lines:
            position += len(line)
            rows += 1
            if line.endswith(b"\n") and rows == rows_of[json.loads(line)["synthetic"]]:
                end, rows = position, 0
    with path.open("r+b") as file:
        file.truncate(end)
