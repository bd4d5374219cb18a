"""The shipped models under thresholds of their own: tests of the fleet are none of the detector."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.detection.bundle import DEFAULT_BUNDLE, read_manifest, seal
from pipeline.detection.policy import DEFAULT_THRESHOLDS, Policy


def make_pinned_bundle(directory: Path, **thresholds: float) -> Path:
    """Strict mode; the sample photographs exit at stage 1, the made images go through all three stages.

    `thresholds` are set beside that.
    """
    shutil.copytree(DEFAULT_BUNDLE, directory)
    policy = Policy(version="pinned", thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t1": 0.6, **thresholds}))
    (directory / read_manifest(directory).policy).write_text(policy.model_dump_json(), encoding="utf-8")
    seal(directory)
    return directory
