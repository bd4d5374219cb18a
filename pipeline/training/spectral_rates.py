"""False positive rates of the photograph hypothesis: by stratum, with compensation off, and on sources never seen.

Every rate counts photographs: the copies of one that fall into a stratum are averaged first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.detection.spectral import strata
from pipeline.detection.spectral.density import standardised
from pipeline.detection.spectral.fitting import fit_stratum, one_copy_each, parts_of
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference, StratumReference
from pipeline.detection.spectral.score import logits_of, photograph_p_values
from pipeline.training.dataset import Labelled
from pipeline.training.spectral_copies import DELIVERED, Copies, columns
from pipeline.training.spectral_reference import fit_photographs

FOLDS = 5
CALIBRATION_PHOTOGRAPHS = 500

PValues = Callable[[Copies], Float64]


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """`share` of `photographs` flagged, between `low` and `high` (95 %, by a bootstrap over photographs)."""

    photographs: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.share:.1%} ({self.low:.1%}-{self.high:.1%})"


def of_photographs(rows: Sequence[Labelled], copies: Copies) -> Copies:
    """The delivered copies of photographs."""
    real = np.array([not row.synthetic for row in rows])
    return copies[real[copies.image] & (copies.kind == DELIVERED)]


def scored(reference: SpectralReference, copies: Copies) -> tuple[Float64, Float64]:
    """Logit of P(synthetic) and p-value of every copy by the reference that serves it, (n,) each."""
    logit, p = np.empty((2, len(copies)))
    stratum = np.array([f"{c}/{s}" for c, s in zip(copies.codec.tolist(), copies.size.tolist(), strict=True)])
    for name in np.unique(stratum).tolist():
        here = stratum == name
        _, served = reference.lookup(name)
        z = standardised(copies.values[here][:, columns(name.partition("/")[0])], served.median, served.scale)
        logit[here], p[here] = logits_of(z, served), photograph_p_values(z, served)
    return logit, p


def cross_fitted(rows: Sequence[Labelled], photographs: Copies, fit: Callable[[Copies], PValues], seed: int) -> Float64:
    """p-value of every copy by a reference that saw no copy of its photograph, in `FOLDS` folds, (n,)."""
    fold = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
    fold_of_copy = fold[photographs.image]
    p = np.empty(len(photographs))
    for held_out in range(FOLDS):
        here = fold_of_copy == held_out
        p[here] = fit(photographs[~here])(photographs[here])
    return p


def compensated(rows: Sequence[Labelled], seed: int, train: Copies) -> PValues:
    """As shipped: a reference by stratum, JPEG's own period masked."""
    reference = SpectralReference(fit_photographs(rows, train, seed=seed))
    return lambda test: scored(reference, test)[1]


def uncompensated_pooled(rows: Sequence[Labelled], seed: int, train: Copies) -> PValues:
    """One reference of all copies for everything, no mask."""
    served = _fit_one(rows, train, list(range(train.values.shape[1])), seed)
    return lambda test: photograph_p_values(standardised(test.values, served.median, served.scale), served)


def uncompensated_native(rows: Sequence[Labelled], seed: int, train: Copies) -> PValues:
    """One reference of the lossless copies at their own scale for everything, no mask."""
    return uncompensated_pooled(rows, seed, train[(train.codec == strata.LOSSLESS) & (train.scale == 1.0)])


def by_group(
    photographs: Copies, flagged: Float64 | npt.NDArray[np.bool_], group: npt.NDArray[np.str_]
) -> dict[str, FalsePositives]:
    """False positives within each group of copies."""
    return {
        name: false_positives(photographs.image[group == name], flagged[group == name])
        for name in np.unique(group).tolist()
    }


def false_positives(image: npt.NDArray[np.int64], flagged: Float64 | npt.NDArray[np.bool_]) -> FalsePositives:
    """Share of flagged copies, averaged by photograph first."""
    _, number = np.unique(image, return_inverse=True)
    shares = np.bincount(number, flagged) / np.bincount(number)
    drawn = np.random.default_rng(0).integers(shares.size, size=(1000, shares.size))
    low, high = np.percentile(shares[drawn].mean(axis=1), [2.5, 97.5]).tolist()
    return FalsePositives(shares.size, float(shares.mean()), low, high)


def over_splits(
    rows: Sequence[Labelled], photographs: Copies, stratum: str, alpha: float, splits: int
) -> tuple[Float64, int]:
    """Realised rates (splits,) on photographs that random `CALIBRATION_PHOTOGRAPHS` leave over, and how many these are.

    Raises:
        ValueError: the stratum has no more photographs than that.
    """
    codec, _, size = stratum.partition("/")
    here = photographs[photographs.codec == codec]
    here = here if size == strata.ANY_SIZE else here[here.size == size]
    present = np.unique(here.image)
    left = present.size - CALIBRATION_PHOTOGRAPHS
    if left < 1:
        raise ValueError(f"stratum {stratum}: {present.size} photographs, {CALIBRATION_PHOTOGRAPHS} are calibrated on")
    rates = np.empty(splits)
    for split in range(splits):
        drawn = np.random.default_rng(split).permutation(present)
        train = np.isin(here.image, drawn[left:])
        served = _fit_one(rows, here[train], columns(codec), split)
        test = here[~train]
        once = one_copy_each(test.image, split)
        z = standardised(test.values[once][:, columns(codec)], served.median, served.scale)
        rates[split] = (photograph_p_values(z, served) <= alpha).mean()
    return rates, left


def by_source_left_out(
    rows: Sequence[Labelled], photographs: Copies, alpha: float
) -> dict[str, Mapping[str, FalsePositives]]:
    """For every source, by codec: false positives of a reference made without it."""
    source = np.array([row.source for row in rows])[photographs.image]
    result: dict[str, Mapping[str, FalsePositives]] = {}
    for name in np.unique(source).tolist():
        test = photographs[source == name]
        flagged = compensated(rows, 0, photographs[source != name])(test) <= alpha
        result[name] = {"all": false_positives(test.image, flagged), **by_group(test, flagged, test.codec)}
    return result


def _fit_one(rows: Sequence[Labelled], copies: Copies, chosen: list[int], seed: int) -> StratumReference:
    parts = np.full(len(rows), -1)
    present = np.unique(copies.image)
    parts[present] = parts_of(present.size, seed)
    return fit_stratum(copies.values[:, chosen], copies.radial, copies.image, parts, seed)
