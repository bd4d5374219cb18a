"""Write what is derived from the models: `json/`, `asyncapi.yaml`, the examples of findings and their projections.

`python -m schemas.generate` writes, `--check` exits 1 and names every stale file, `--snapshot` keeps this
release's schemas and examples under `examples/previous/`, for the releases that follow.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from schemas import asyncapi
from schemas.base import SCHEMA_VERSION, Part
from schemas.deadletter import DeadLetter
from schemas.decision import Decision
from schemas.envelope import schema_name, schema_uri
from schemas.erasure import Erasure
from schemas.forensics import ForensicReport
from schemas.media import AnomalousMedia, MediaReference, SuspectMedia
from schemas.ocsf import (
    DetectionFinding,
    encode_finding,
    finding_from_closed_case,
    finding_from_decision,
    finding_from_review,
)
from schemas.quality import QualityEvent
from schemas.reference import ReferencePointer
from schemas.review import ReferenceUpdate, ReviewAction, ReviewVerdict
from schemas.shadow import AuditSample, ShadowResult
from schemas.siem import cef_line, ecs_document
from schemas.wire import decode

ROOT = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
RECORDS: tuple[type[Part], ...] = (
    MediaReference,
    SuspectMedia,
    AnomalousMedia,
    Decision,
    DetectionFinding,
    ForensicReport,
    DeadLetter,
    ReviewVerdict,
    ReviewAction,
    ReferenceUpdate,
    ReferencePointer,
    Erasure,
    AuditSample,
    ShadowResult,
    QualityEvent,
)
_REVIEWED = "escalate_uncertain"
"""The decision that the examples of reviews are of."""
_OPEN = timedelta(minutes=5)


def json_schema(model: type[Part]) -> dict[str, Any]:
    """JSON Schema 2020-12 of what a writer may send; readers also ignore unknown fields."""
    return {"$schema": DIALECT, "$id": schema_uri(model), **model.model_json_schema(mode="validation")}


def derived_files(root: Path = ROOT) -> dict[Path, str]:
    """Every derived file and its text. Reads the examples of decisions under `root`."""
    files = {root / f"json/{schema_name(model)}.json": _pretty(json_schema(model)) for model in RECORDS}
    files[root / "asyncapi.yaml"] = "# Derived: python -m schemas.generate\n" + asyncapi.to_yaml(asyncapi.document())
    for name, finding in _findings(root / "examples/valid"):
        path = root / f"examples/valid/{schema_name(DetectionFinding)}/{name}.json"
        files[path] = _pretty(json.loads(encode_finding(finding)))
        files[root / f"examples/siem/ecs/{name}.json"] = _pretty(ecs_document(finding))
        files[root / f"examples/siem/cef/{name}.cef"] = cef_line(finding) + "\n"
    return files


def stale_files(root: Path = ROOT) -> list[Path]:
    """Derived files that are missing or differ, and files among them that nothing derives any more."""
    files = derived_files(root)
    differing = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    folders = sorted({path.parent for path in files if path.parent != root})
    return differing + [path for folder in folders for path in sorted(folder.glob("*")) if path not in files]


def write(root: Path = ROOT) -> None:
    """Write every derived file, and remove what nothing derives any more."""
    for path, text in derived_files(root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in stale_files(root):
        path.unlink()


def snapshot(root: Path = ROOT) -> Path:
    """Keep this version's schemas and valid examples; returns their folder."""
    target = root / "examples/previous" / SCHEMA_VERSION
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(root / "json", target / "json")
    shutil.copytree(root / "examples/valid", target / "valid")
    return target


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    what.add_argument("--snapshot", action="store_true", help="keep this release for later compatibility tests")
    options = parser.parse_args(arguments)
    if options.check:
        stale = stale_files(root)
        for path in stale:
            sys.stderr.write(f"{path.relative_to(root.parent)} is stale: run python -m schemas.generate\n")
        return 1 if stale else 0
    write(root)
    if options.snapshot:
        snapshot(root)
    return 0


def _findings(examples: Path) -> Iterator[tuple[str, DetectionFinding]]:
    decisions = {p.stem: decode(Decision, p.read_bytes()) for p in (examples / schema_name(Decision)).glob("*.json")}
    for name, decision in decisions.items():
        yield name, finding_from_decision(decision)
    held = decisions[_REVIEWED]
    yield "closed_without_review", finding_from_closed_case(held, None, held.decided_at + _OPEN, 1)
    for path in (examples / schema_name(ReviewVerdict)).glob("*.json"):
        review = decode(ReviewVerdict, path.read_bytes())
        yield f"review_{path.stem}", finding_from_review(held, review, 1)
        yield f"closed_{path.stem}", finding_from_closed_case(held, review, review.reviewed_at + _OPEN, 2)


def _pretty(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
