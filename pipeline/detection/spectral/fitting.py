"""Fit one stratum's reference to photographs in three parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.detection.spectral import pvalues
from pipeline.detection.spectral.density import (
    ledoit_wolf,
    mahalanobis,
    neighbour_distance,
    standardised,
    whitening_of,
)
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import BAND_LEVELS, QUANTILE_LEVELS, StratumReference
from pipeline.detection.spectral.score import first_ranking

Int64 = npt.NDArray[np.int64]

MIN_PHOTOGRAPHS = 100
"""A stratum with fewer photographs has no reference of its own and uses the pooled one."""

FIT, FIRST_RANKING, SECOND_RANKING = 0, 1, 2
_TURN = np.array([FIT, FIRST_RANKING, FIT, SECOND_RANKING])
_MAD_TO_STD = 1.4826


def parts_of(photographs: int, seed: int) -> Int64:
    """The part of each of n photographs, (n,): half to fit, a quarter for either ranking, drawn by seed.

    Use one draw for all strata: then all copies of a photograph are in the same part everywhere.
    """
    parts = np.empty(photographs, np.int64)
    parts[np.random.default_rng(seed).permutation(photographs)] = np.resize(_TURN, photographs)
    return parts


def fit_stratum(values: Float64, radial: Float64, photograph: Int64, parts: Int64, seed: int = 0) -> StratumReference:
    """The reference of one stratum; the head is left at zero, prior 0.5.

    `values` (n, F) features and `radial` (n, 64) curves of n copies; `photograph` (n,) whose copies they are;
    `parts` by photograph, from `parts_of`. All copies count in the fit; one of each photograph, drawn by `seed`,
    is ranked, so that counts are of photographs.

    Raises:
        ValueError: a feature does not vary, or there are fewer than `MIN_PHOTOGRAPHS` photographs.
    """
    count = len(set(photograph.tolist()))
    if count < MIN_PHOTOGRAPHS:
        raise ValueError(f"{count} photographs, at least {MIN_PHOTOGRAPHS} are needed")
    ranked_copy = one_copy_each(photograph, seed)
    part = parts[photograph]
    fit = values[part == FIT]
    median = np.median(fit, axis=0).astype(np.float64)
    scale = _MAD_TO_STD * np.median(np.abs(fit - median), axis=0).astype(np.float64)
    if not (scale > 0).all():
        raise ValueError(f"features {np.flatnonzero(scale <= 0).tolist()} do not vary among the photographs")
    z = standardised(values, median, scale)
    mean: Float64 = z[part == FIT].mean(axis=0)
    whitening = whitening_of(ledoit_wolf(z[part == FIT] - mean))
    neighbours = as_stored((z[(part == FIT) & ranked_copy] - mean) @ whitening)
    first, second = (z[(part == which) & ranked_copy] for which in (FIRST_RANKING, SECOND_RANKING))
    chosen = pvalues.independent_subset(z[(part == FIT) & ranked_copy])
    fitted = StratumReference(
        median,
        scale,
        mean,
        whitening,
        neighbours,
        mahalanobis_ranks=np.sort(mahalanobis((first - mean) @ whitening)),
        neighbour_ranks=np.sort(neighbour_distance((first - mean) @ whitening, neighbours)),
        feature_ranks=np.sort(first[:, chosen], axis=0),
        independent=np.isin(np.arange(values.shape[1]), chosen).astype(np.float64),
        calibration=np.zeros(1),
        held_out=as_stored(second),
        held_out_photograph=photograph[(part == SECOND_RANKING) & ranked_copy].astype(np.float64),
        generated=np.zeros((0, values.shape[1])),
        quantiles=np.percentile(values, QUANTILE_LEVELS, axis=0),
        radial_band=np.percentile(radial, BAND_LEVELS, axis=0),
        weights=np.zeros(values.shape[1]),
        intercept=np.zeros(()),
        prior=np.array(0.5),
        family_offset=np.zeros(()),
        photographs=np.array(float(count)),
    )
    return replace(fitted, calibration=np.sort(-np.log(first_ranking(second, fitted).combined)))


def one_copy_each(photograph: Int64, seed: int) -> npt.NDArray[np.bool_]:
    """True at one copy, drawn by seed, of each photograph, (n,)."""
    order = np.random.default_rng(seed).permutation(photograph.size)
    _, first = np.unique(photograph[order], return_index=True)
    chosen = np.zeros(photograph.size, np.bool_)
    chosen[order[first]] = True
    return chosen


def as_stored(rows: Float64) -> Float64:
    """Rounded to what the file keeps of single photographs, so that a reference read back is the same."""
    return rows.astype(np.float32).astype(np.float64)
