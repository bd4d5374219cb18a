"""Scores files as `evaluate` writes them, made up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.detection.calibration import sigmoid
from pipeline.evaluation.score_row import ScoreRow, Status

CODECS = ("lossless", "webp_lossy")


def row(
    key: str,
    *,
    synthetic: bool,
    s1: float | None,
    s2: float | None,
    source: str = "a",
    stratum: str = "lossless/any",
    variant: str = "as delivered",
) -> ScoreRow:
    """One image; without a spectral score it is not applicable, without any it failed."""
    status = Status.FAILED if s1 is None else Status.NOT_APPLICABLE if s2 is None else Status.SCORED
    return ScoreRow(
        key=key,
        synthetic=synthetic,
        status=status,
        source=source,
        group=source,
        generator="x",
        base="y",
        stratum=stratum,
        classifier=s1,
        spectral=s2,
        variant=variant,
    )


def rows(
    real: int, synthetic: int, seed: int = 0, *, strength: tuple[float, float] = (1.5, 1.0), sources: int = 5
) -> Sequence[ScoreRow]:
    """Normal logits at -+ `strength` of classifier and spectrum; every 37th without a spectrum, every 101st broken."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(real + synthetic):
        label = number >= real
        s1, s2 = (sigmoid(float(rng.normal(mean if label else -mean, 1.2))) for mean in strength)
        failed, blank = number % 101 == 100, number % 37 == 36
        made.append(
            row(
                f"{number:05d}",
                synthetic=label,
                s1=None if failed else s1,
                s2=None if failed or blank else s2,
                source=f"{'made' if label else 'real'}-{number % sources}",
                stratum=f"{CODECS[number % 2]}/384_767",
            )
        )
    return made
