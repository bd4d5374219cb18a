"""The reference: per stratum, how photographs' spectra are distributed, and the head trained on them.

On disk a compressed .npz of plain arrays; pickles are refused, so that a reference is data and never code.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.detection.spectral import features, kernel, strata
from pipeline.detection.spectral.kernel import Float64

FORMAT = 1
MIN_PHOTOGRAPHS = 50
"""A stratum with fewer photographs has no reference of its own and uses the pooled one."""

QUANTILE_LEVELS = np.array([0.0, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 100.0])
BAND_LEVELS = np.array([5.0, 25.0, 50.0, 75.0, 95.0])
MAX_Z = 10.0
"""Standardised features are clipped here, so that one strange statistic cannot decide alone without bound."""

_MAD_TO_STD = 1.4826
_REQUIRED = tuple(f"{codec}/{strata.ANY_SIZE}" for codec in (*strata.CODECS, strata.ANY_LOSSY))


class SpectralReferenceError(Exception):
    """The reference file cannot be used; the text names the file, what is wrong and the way out."""


@dataclass(frozen=True, slots=True)
class StratumReference:
    """Photographs of one stratum, F features, float64.

    `median`, `scale` (F,): robust location and spread; `mean` (F,), `precision` (F, F): of the standardised
    photographs; `calibration` (n,): sorted Mahalanobis distances of photographs not used for the former;
    `quantiles` (9, F) at `QUANTILE_LEVELS`; `radial_band` (5, 64) at `BAND_LEVELS`; `weights` (F,) and
    `intercept` (): the calibrated logit of P(synthetic) at prior 0.5; `photographs` (): how many.
    """

    median: Float64
    scale: Float64
    mean: Float64
    precision: Float64
    calibration: Float64
    quantiles: Float64
    radial_band: Float64
    weights: Float64
    intercept: Float64
    photographs: Float64


@dataclass(frozen=True, slots=True)
class SpectralReference:
    """All strata by name, such as `lossless/128_383` or the pooled `lossy/any`."""

    strata: Mapping[str, StratumReference]

    def lookup(self, stratum: str) -> tuple[str, StratumReference]:
        """The stratum's own reference or the nearest pooled one, with its name."""
        name = next(name for name in strata.fallbacks(stratum) if name in self.strata)
        return name, self.strata[name]

    def save(self, path: Path) -> None:
        """Write the .npz; the same reference gives the same bytes."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "format": np.array(FORMAT),
            "feature_names": np.array(features.NAMES),
        }
        for name in sorted(self.strata):
            for field in fields(StratumReference):
                arrays[f"{name}.{field.name}"] = np.asarray(getattr(self.strata[name], field.name), np.float64)
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> SpectralReference:
        """Read a reference written by `save`.

        Raises:
            SpectralReferenceError: missing, not an .npz, with pickled objects, of another format or feature
                set, without a required pooled stratum, or with an array of a wrong shape or not finite.
        """
        arrays = _read_arrays(path)
        if int(arrays.pop("format", np.array(-1))) != FORMAT:
            raise SpectralReferenceError(
                f"{path}: not of format {FORMAT}; build it anew with pipeline.training.spectral_reference"
            )
        if tuple(arrays.pop("feature_names", np.array([])).tolist()) != features.NAMES:
            raise SpectralReferenceError(
                f"{path}: made for other features; build it anew with pipeline.training.spectral_reference"
            )
        names = sorted({key.rpartition(".")[0] for key in arrays})
        missing = [name for name in _REQUIRED if name not in names]
        if missing:
            raise SpectralReferenceError(
                f"{path}: lacks the strata {', '.join(missing)}; build it from more photographs"
            )
        return cls({name: _stratum(path, name, arrays) for name in names})


def fit_stratum(values: Float64, radial: Float64, seed: int) -> StratumReference:
    """Fit on a random half of photographs, calibrate on the other half; the head is left at zero.

    `values` (n, F) features, `radial` (n, 64) curves, n >= MIN_PHOTOGRAPHS.

    Raises:
        ValueError: a feature does not vary, or there are too few photographs.
    """
    n = len(values)
    if n < MIN_PHOTOGRAPHS:
        raise ValueError(f"{n} photographs, at least {MIN_PHOTOGRAPHS} are needed")
    order = np.random.default_rng(seed).permutation(n)
    fit, held_out = values[order[: n // 2]], values[order[n // 2 :]]
    median = np.median(fit, axis=0).astype(np.float64)
    scale = _MAD_TO_STD * np.median(np.abs(fit - median), axis=0).astype(np.float64)
    if not (scale > 0).all():
        raise ValueError(f"features {np.flatnonzero(scale <= 0).tolist()} do not vary among the photographs")
    z = standardised(fit, median, scale)
    mean: Float64 = z.mean(axis=0)
    precision = np.linalg.inv(ledoit_wolf(z - mean)).astype(np.float64)
    distances = mahalanobis(standardised(held_out, median, scale) - mean, precision)
    return StratumReference(
        median,
        scale,
        mean,
        precision,
        calibration=np.sort(distances),
        quantiles=np.percentile(values, QUANTILE_LEVELS, axis=0),
        radial_band=np.percentile(radial, BAND_LEVELS, axis=0),
        weights=np.zeros(values.shape[1]),
        intercept=np.zeros(()),
        photographs=np.array(float(n)),
    )


def standardised(values: Float64, median: Float64, scale: Float64) -> Float64:
    """Robust z-scores of (..., F), clipped to +-`MAX_Z`."""
    return np.clip((values - median) / scale, -MAX_Z, MAX_Z)


def mahalanobis(centred: Float64, precision: Float64) -> Float64:
    """Distances of (n, F) rows from 0, (n,)."""
    result: Float64 = np.sqrt(np.einsum("ni,ij,nj->n", centred, precision, centred))
    return result


def ledoit_wolf(centred: Float64) -> Float64:
    """Covariance of centred rows (n, F), shrunk towards a multiple of the identity, (F, F).

    Source: Ledoit & Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices,
    Journal of Multivariate Analysis 88(2), equations 6 to 16: d2 is the dispersion of the sample covariance
    around its target, b2 the part of it that is estimation error.
    """
    n, p = centred.shape
    sample = centred.T @ centred / n
    target = np.trace(sample) / p * np.eye(p)
    d2 = np.square(sample - target).sum()
    fourth = np.square(np.square(centred).sum(axis=1)).sum()
    b2 = min((fourth / n - np.square(sample).sum()) / n, d2)
    shrinkage = b2 / d2 if d2 > 0 else 1.0
    result: Float64 = shrinkage * target + (1.0 - shrinkage) * sample
    return result


def _read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise SpectralReferenceError(f"{path}: not a readable .npz without pickles: {error}") from error


def _stratum(path: Path, name: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> StratumReference:
    count = len(features.names_for(strata.masks_jpeg_grid(name)))
    shapes: dict[str, tuple[int, ...]] = {
        "precision": (count, count),
        "quantiles": (QUANTILE_LEVELS.size, count),
        "radial_band": (BAND_LEVELS.size, kernel.RADIAL_BINS),
        "intercept": (),
        "photographs": (),
    }
    loaded: dict[str, Float64] = {}
    for field in fields(StratumReference):
        key = f"{name}.{field.name}"
        array = arrays.get(key)
        if array is None or array.dtype != np.float64 or not np.isfinite(array).all():
            raise SpectralReferenceError(f"{path}: `{key}` is missing, not float64 or not finite; build the file anew")
        expected = (array.size,) if field.name == "calibration" else shapes.get(field.name, (count,))
        if array.shape != expected or array.size == 0:
            raise SpectralReferenceError(f"{path}: `{key}` has shape {array.shape}, expected {expected}")
        loaded[field.name] = array.astype(np.float64)
        loaded[field.name].flags.writeable = False
    return StratumReference(**loaded)
