"""The reference: per stratum, how photographs' spectra are distributed, the head and the generator families.

On disk a compressed .npz of plain arrays; pickles are refused, so that a reference is data and never code. Its
content hash names it: two references with the same hash give the same scores.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.detection.spectral import features, kernel, strata
from pipeline.detection.spectral.density import NEIGHBOURS
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.pvalues import require_level

FORMAT = 2
QUANTILE_LEVELS = np.array([0.0, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 100.0])
BAND_LEVELS = np.array([5.0, 25.0, 50.0, 75.0, 95.0])

_REQUIRED = tuple(f"{codec}/{strata.ANY_SIZE}" for codec in (*strata.CODECS, strata.ANY_LOSSY))
_FAMILY = "families"
_BUILD_ANEW = "build it anew with pipeline.training.spectral_reference"
_ROWS = {"neighbours": NEIGHBOURS, "held_out": 1, "generated": 0}
_COLUMNS = ("mahalanobis_ranks", "neighbour_ranks", "calibration", "held_out_photograph")
_SCALARS = ("intercept", "prior", "family_offset", "photographs")

Arrays = dict[str, npt.NDArray[np.generic]]


class SpectralReferenceError(Exception):
    """The reference file cannot be used; the text names the file, what is wrong and the way out."""


@dataclass(frozen=True, slots=True)
class FamilyDirection:
    """Evidence for one generator family: `weights` (F,) @ z + `intercept` (), a log likelihood ratio, float64."""

    weights: Float64
    intercept: Float64


@dataclass(frozen=True, slots=True)
class StratumReference:
    """Photographs of one stratum, F features, float64. They are in three parts, copies of one in the same part.

    First part: `median`, `scale` (F,), robust location and spread; `mean` (F,) and `whitening` (F, F) of the
    standardised photographs; `neighbours` (m, F), the photographs themselves, whitened.
    Second part: `mahalanobis_ranks`, `neighbour_ranks` (c,), sorted distances; `feature_ranks` (c, K), sorted
    values of the features for which `independent` (F,) is 1.
    Third part: `calibration` (t,), sorted -ln of the combined p-value; `held_out` (h, F), photographs that new families
    are held against, standardised, and their numbers `held_out_photograph` (h,), the same in all strata.
    `generated` (g, F): standardised images of known generators, which a new family must not hide; g may be 0.
    All parts: `quantiles` (9, F) at `QUANTILE_LEVELS`; `radial_band` (5, 64) at `BAND_LEVELS`; `photographs` ().
    The head: `weights` (F,) and `intercept` (), the calibrated logit of P(synthetic) at `prior` ().
    `families`: evidence for single generator families, by name; `family_offset` () is taken off the logit with them.
    """

    median: Float64
    scale: Float64
    mean: Float64
    whitening: Float64
    neighbours: Float64
    mahalanobis_ranks: Float64
    neighbour_ranks: Float64
    feature_ranks: Float64
    independent: Float64
    calibration: Float64
    held_out: Float64
    held_out_photograph: Float64
    generated: Float64
    quantiles: Float64
    radial_band: Float64
    weights: Float64
    intercept: Float64
    prior: Float64
    family_offset: Float64
    photographs: Float64
    families: Mapping[str, FamilyDirection] = field(default_factory=dict)


_ARRAYS = tuple(f.name for f in fields(StratumReference) if f.name != _FAMILY)


@dataclass(frozen=True, slots=True)
class SpectralReference:
    """All strata by name, such as `lossless/128_383` or the pooled `lossy/any`.

    `parent` is the content hash of the reference that this one was derived from, or empty.
    """

    strata: Mapping[str, StratumReference]
    parent: str = ""

    def lookup(self, stratum: str) -> tuple[str, StratumReference]:
        """The stratum's own reference or the nearest pooled one, with its name."""
        name = next(name for name in strata.fallbacks(stratum) if name in self.strata)
        return name, self.strata[name]

    def require_level(self, alpha: float) -> None:
        """Check that every stratum has photographs enough for p-values as small as `alpha`.

        Raises:
            TooFewPhotographs: one has not; the text names it.
        """
        for name, stratum in self.strata.items():
            require_level(name, stratum.calibration.size, alpha)

    @property
    def families(self) -> frozenset[str]:
        """Names of the generator families that were added."""
        return frozenset(family for stratum in self.strata.values() for family in stratum.families)

    @property
    def content_hash(self) -> str:
        """SHA-256 over names, shapes and bytes of all arrays: names what the reference says, not its ancestry."""
        digest = hashlib.sha256()
        for key, array in self._arrays():
            digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the .npz; the same reference gives the same bytes."""
        arrays = dict(self._arrays())
        arrays |= {"content_hash": np.array(self.content_hash), "parent": np.array(self.parent)}
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> SpectralReference:
        """Read a reference written by `save`.

        Raises:
            SpectralReferenceError: missing, not an .npz, with pickled objects, of another format or feature
                set, without a required pooled stratum, with an array of a wrong shape or not finite, or with
                a content hash that is not that of its arrays.
        """
        arrays = _read_arrays(path)
        if int(arrays.pop("format", np.array(-1))) != FORMAT:
            raise SpectralReferenceError(f"{path}: not of format {FORMAT}; {_BUILD_ANEW}")
        if tuple(arrays.pop("feature_names", np.array([])).tolist()) != features.NAMES:
            raise SpectralReferenceError(f"{path}: made for other features; {_BUILD_ANEW}")
        stated, parent = (str(arrays.pop(key, np.array(""))) for key in ("content_hash", "parent"))
        names = sorted({key.rpartition(".")[0] for key in arrays if not key.startswith(f"{_FAMILY}/")})
        missing = [name for name in _REQUIRED if name not in names]
        if missing:
            raise SpectralReferenceError(
                f"{path}: lacks the strata {', '.join(missing)}; build it from more photographs"
            )
        reference = cls({name: _stratum(path, name, arrays) for name in names}, parent)
        if reference.content_hash != stated:
            raise SpectralReferenceError(f"{path}: content_hash is not that of its arrays; {_BUILD_ANEW}")
        return reference

    def _arrays(self) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
        yield "format", np.array(FORMAT)
        yield "feature_names", np.array(features.NAMES)
        for name in sorted(self.strata):
            stratum = self.strata[name]
            for array in _ARRAYS:
                dtype = np.float32 if array in _ROWS else np.float64
                yield f"{name}.{array}", np.asarray(getattr(stratum, array), dtype)
            for family in sorted(stratum.families):
                direction = stratum.families[family]
                yield f"{_FAMILY}/{family}/{name}.weights", np.asarray(direction.weights, np.float64)
                yield f"{_FAMILY}/{family}/{name}.intercept", np.asarray(direction.intercept, np.float64)


def _read_arrays(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise SpectralReferenceError(f"{path}: not a readable .npz without pickles: {error}") from error


def _stratum(path: Path, name: str, arrays: Arrays) -> StratumReference:
    count = len(features.names_for(strata.masks_jpeg_grid(name)))
    independent = arrays.get(f"{name}.independent", np.zeros(0))
    chosen = int(np.count_nonzero(independent)) if independent.dtype == np.float64 else 0
    ranked = arrays.get(f"{name}.mahalanobis_ranks", np.zeros(0)).size
    shapes: dict[str, tuple[int, ...]] = {
        "whitening": (count, count),
        "feature_ranks": (ranked, chosen),
        "quantiles": (QUANTILE_LEVELS.size, count),
        "radial_band": (BAND_LEVELS.size, kernel.RADIAL_BINS),
    }
    loaded: dict[str, Float64] = {}
    for array in _ARRAYS:
        found = _float_array(path, f"{name}.{array}", arrays, np.float32 if array in _ROWS else np.float64)
        shape: tuple[int, ...] = shapes.get(array, (count,))
        if array in _SCALARS:
            shape = ()
        elif array in _COLUMNS:
            shape = (found.size,)
        elif array in _ROWS:
            shape = (max(found.shape[0] if found.ndim else 0, _ROWS[array]), count)
        _check_shape(path, f"{name}.{array}", found, shape)
        loaded[array] = found
    return StratumReference(**loaded, families=dict(_families(path, name, arrays, count)))


def _families(path: Path, name: str, arrays: Arrays, count: int) -> Iterator[tuple[str, FamilyDirection]]:
    end = f"/{name}.weights"
    for key in sorted(arrays):
        if key.startswith(f"{_FAMILY}/") and key.endswith(end):
            family = key[len(_FAMILY) + 1 : -len(end)]
            weights = _float_array(path, key, arrays, np.float64)
            _check_shape(path, key, weights, (count,))
            scalar = f"{_FAMILY}/{family}/{name}.intercept"
            intercept = _float_array(path, scalar, arrays, np.float64)
            _check_shape(path, scalar, intercept, ())
            yield family, FamilyDirection(weights, intercept)


def _float_array(path: Path, key: str, arrays: Arrays, dtype: type[np.floating]) -> Float64:
    array = arrays.get(key)
    if array is None or array.dtype != dtype or not np.isfinite(array.astype(np.float64)).all():
        raise SpectralReferenceError(f"{path}: `{key}` is missing, not {dtype.__name__} or not finite; {_BUILD_ANEW}")
    result: Float64 = array.astype(np.float64)
    result.flags.writeable = False
    return result


def _check_shape(path: Path, key: str, array: Float64, expected: tuple[int, ...]) -> None:
    if array.shape != expected or (array.size == 0 and array.shape[:1] != (0,)) or expected == (0,):
        raise SpectralReferenceError(f"{path}: `{key}` has shape {array.shape}, expected {expected}; {_BUILD_ANEW}")
