"""Add a generator family to a reference from a few samples, if they prove that it helps; take it away again.

    python -m pipeline.training.spectral_family add REFERENCE --name NAME --images DIR --out DIR
    python -m pipeline.training.spectral_family remove REFERENCE --name NAME --out DIR

The evidence for a family is ln N(z; samples) - ln N(z; photographs) with one Ledoit-Wolf covariance for both: linear
in z, so that ten samples suffice to point a direction. It is shrunk by a temperature fitted on samples left out, and
how it enters the score is bounded: see `score.logits_of`. An offset keeps the photographs' score where it was at the
operating point, so that a family is paid for with other families' misses and not with false alarms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from pipeline.detection.spectral.density import MAX_Z, ledoit_wolf, standardised
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import FamilyDirection, SpectralReference, StratumReference
from pipeline.detection.spectral.score import logits_of, with_family

MIN_SAMPLES, MAX_SAMPLES = 10, 200
MIN_RISE = 0.02
"""A family must raise the AUC between samples left out and photographs by at least this."""

NULL_DRAWS = 39
"""Sets of photographs that are tried as if they were samples: the largest AUC among them is what luck can do."""

LUCK_MARGIN = 0.08
"""By how much the samples must exceed it: the photographs of one camera resemble each other more than drawn ones do."""

OPERATING_FPR = 0.1
MAX_KNOWN_LOSS = 0.05
"""How much the AUC between known generated images and photographs may fall: photographs of one camera or collection
are as coherent as a family, and would hide what is known."""

MAX_CLIPPED_SHARE = 0.25
"""Share of a median sample's features beyond `MAX_Z`; more is no image of the kinds that were measured."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class FamilyRefused(Exception):
    """The samples did not earn the family a place; the text says which condition failed and by how much."""

    def __init__(self, name: str, gate: Gate) -> None:
        """Name the family and every condition that failed."""
        super().__init__(f"family {name}: {'; '.join(gate.failures())}; the reference is unchanged")
        self.gate = gate


@dataclass(frozen=True, slots=True)
class Gate:
    """What leaving one sample out showed, meaned over strata.

    AUC of samples against photographs of the third part, `old_auc` by the reference as it was, `new_auc` by that
    with the family made of the other samples; `luck` the largest `new_auc` that as many photographs reached in the
    samples' place, of `NULL_DRAWS` draws.
    `old_fpr` and `new_fpr` of each half of those photographs at a cut for `OPERATING_FPR`, and by an offset, from the
    other half; `new_fpr_lower` the lower 95 % Clopper-Pearson limit. `*_known_auc`
    of known generated images, NaN where there are none. `clipped_share` of the median sample's features.
    """

    samples: int
    photographs: int
    old_auc: float
    new_auc: float
    luck: float
    old_fpr: float
    new_fpr: float
    new_fpr_lower: float
    old_known_auc: float
    new_known_auc: float
    clipped_share: float

    def failures(self) -> list[str]:
        """Conditions that do not hold."""
        found = []
        rise = self.new_auc - self.old_auc
        if rise < MIN_RISE or self.new_auc <= self.luck + LUCK_MARGIN:
            found.append(
                f"AUC of samples left out goes from {self.old_auc:.3f} to {self.new_auc:.3f}, needed are"
                f" +{MIN_RISE} and {LUCK_MARGIN} more than the {self.luck:.3f} that photographs reach by luck"
            )
        if self.new_fpr_lower > OPERATING_FPR:
            found.append(
                f"the false positive rate rises from {self.old_fpr:.3f} to {self.new_fpr:.3f} (lower limit"
                f" {self.new_fpr_lower:.3f}) where {OPERATING_FPR:.3f} is meant"
            )
        if self.old_known_auc - self.new_known_auc > MAX_KNOWN_LOSS:
            found.append(
                f"the AUC of known generated images falls from {self.old_known_auc:.3f} to {self.new_known_auc:.3f}"
            )
        if self.clipped_share > MAX_CLIPPED_SHARE:
            found.append(f"{self.clipped_share:.0%} of the features of the median sample are out of range: no images")
        return found


def add_family(
    reference: SpectralReference, name: str, samples: Mapping[str, Float64]
) -> tuple[SpectralReference, Gate]:
    """A reference with the family, its parent the one given.

    `samples` maps names of strata that the reference holds to features (n, F), the same n images in the same order
    in each, 10 <= n <= 200.

    Raises:
        ValueError: a bad or used name, an unknown stratum, or another shape.
        FamilyRefused: the gate is shut.
    """
    _check(reference, name, samples)
    standard = {
        stratum: standardised(values, reference.strata[stratum].median, reference.strata[stratum].scale)
        for stratum, values in samples.items()
    }
    draws = _draws([reference.strata[stratum] for stratum in standard], len(next(iter(standard.values()))))
    trials = {stratum: _Trial.of(reference.strata[stratum], z, draws) for stratum, z in standard.items()}
    gate = _gate(trials, standard)
    if gate.failures():
        raise FamilyRefused(name, gate)
    changed = dict(reference.strata)
    for stratum, trial in trials.items():
        changed[stratum] = _balanced(changed[stratum], {**changed[stratum].families, name: trial.direction})
    return SpectralReference(changed, parent=reference.content_hash), gate


def remove_family(reference: SpectralReference, name: str) -> SpectralReference:
    """A reference without the family; the last one added gone, its content hash is the parent's again.

    Raises:
        ValueError: it has no such family.
    """
    if name not in reference.families:
        raise ValueError(f"no family {name!r}; there are: {', '.join(sorted(reference.families)) or 'none'}")
    changed = {
        key: _balanced(stratum, {k: v for k, v in stratum.families.items() if k != name})
        for key, stratum in reference.strata.items()
    }
    return SpectralReference(changed, parent=reference.content_hash)


def left_out_placements(reference: SpectralReference, samples: Mapping[str, Float64]) -> Float64:
    """Where each sample stands among photographs by the evidence of a family made of the others, (n,).

    0: below all photographs of the third part, 1: above all; meaned over strata. `samples` as in `add_family`.
    """
    places = []
    for stratum, values in samples.items():
        known = reference.strata[stratum]
        z = standardised(values, known.median, known.scale)
        weights, intercepts = _directions(z, known.held_out.mean(axis=0), _axes(known, z))
        own = np.einsum("nf,nf->n", z, weights[1:]) + intercepts[1:]
        photographs = known.held_out @ weights[1:].T + intercepts[1:]
        places.append((photographs < own).mean(axis=0) + 0.5 * (photographs == own).mean(axis=0))
    result: Float64 = np.mean(places, axis=0)
    return result


def alarms(reference: SpectralReference, images: Mapping[str, Float64]) -> Float64:
    """Share of the strata in which each image (n,) scores above the cut for `OPERATING_FPR`."""
    above = []
    for stratum, values in images.items():
        known = reference.strata[stratum]
        z = standardised(values, known.median, known.scale)
        above.append(logits_of(z, known) > _cut(logits_of(known.held_out, known)))
    result: Float64 = np.mean(above, axis=0)
    return result


def save_by_hash(reference: SpectralReference, directory: Path) -> Path:
    """Write it beside its ancestors as `spectral_reference-<first 12 digits of its content hash>.npz`."""
    path = directory / f"spectral_reference-{reference.content_hash[:12]}.npz"
    reference.save(path)
    return path


@dataclass(frozen=True, slots=True)
class _Trial:
    """One stratum: the family's `direction`, and what it does to samples left out and to photographs.

    `old`, `new` (n,): share of the third part's photographs that score lower than each sample, by the reference
    and by that with the family made of the other samples. `photographs_old`, `photographs_new` (t,): their logits.
    `lucky`: the mean of `new` for each draw of photographs. `known`: AUC of known generated images, before and after;
    NaN where the reference holds none.
    """

    direction: FamilyDirection
    old: Float64
    new: Float64
    photographs_old: Float64
    photographs_new: Float64
    lucky: list[float]
    known: tuple[float, float]

    @classmethod
    def of(cls, stratum: StratumReference, z: Float64, draws: Sequence[Float64]) -> _Trial:
        """Fit the family, leave every sample out once, and try each draw of photographs in the samples' place."""
        photographs = stratum.held_out
        axes = _axes(stratum, z)
        weights, intercepts = _directions(z, stratum.held_out.mean(axis=0), axes)
        left_out = np.einsum("nf,nf->n", z, weights[1:]) + intercepts[1:]
        temperature = _temperature(left_out, photographs @ weights[0] + intercepts[0])
        direction = FamilyDirection(weights[0] * temperature, np.asarray(intercepts[0] * temperature))
        old_photographs = logits_of(photographs, stratum)
        lucky = [_lucky_auc(stratum, np.isin(stratum.held_out_photograph, drawn), axes, temperature) for drawn in draws]
        old, new = _placements(stratum, z, photographs, axes, temperature)
        changed = _with(stratum, direction)
        new_photographs = logits_of(photographs, changed)
        known = (
            _auc(old_photographs, logits_of(stratum.generated, stratum)),
            _auc(new_photographs, logits_of(stratum.generated, changed)),
        )
        return cls(direction, old, new, old_photographs, new_photographs, lucky, known)


def _draws(strata: Sequence[StratumReference], samples: int) -> list[Float64]:
    """Numbers of as many photographs as samples, half of those that all strata hold at most, `NULL_DRAWS` times."""
    common = strata[0].held_out_photograph
    for stratum in strata[1:]:
        common = np.intersect1d(common, stratum.held_out_photograph)
    if common.size < 2 * MIN_SAMPLES:
        raise ValueError(f"the strata share {common.size} photographs to hold a family against; give fewer strata")
    rng = np.random.default_rng(0)
    return [rng.choice(common, min(samples, common.size // 2), replace=False) for _ in range(NULL_DRAWS)]


def _lucky_auc(stratum: StratumReference, drawn: npt.NDArray[np.bool_], axes: Float64, temperature: float) -> float:
    _, new = _placements(stratum, stratum.held_out[drawn], stratum.held_out[~drawn], axes, temperature)
    return float(new.mean())


def _axes(stratum: StratumReference, z: Float64) -> Float64:
    """Inverse (F, F) of the Ledoit-Wolf covariance that the fitted photographs and all samples share.

    Of the features that the head weighs, of all where it weighs none; 0 elsewhere. Ten samples cannot point a
    direction among all features, and those of the head are known to carry over between sources. It stays when a
    sample is left out, which makes that sample look less extreme by its share in hundreds of rows.
    """
    weighed = np.flatnonzero(stratum.weights)
    chosen = weighed if weighed.size else np.arange(z.shape[1])
    photographs = (stratum.neighbours @ np.linalg.inv(stratum.whitening))[:, chosen]
    samples = z[:, chosen]
    centred = np.concatenate([photographs - photographs.mean(axis=0), samples - samples.mean(axis=0)])
    axes = np.zeros((z.shape[1], z.shape[1]))
    axes[np.ix_(chosen, chosen)] = np.linalg.inv(ledoit_wolf(centred))
    return axes


def _directions(z: Float64, photographs_mean: Float64, axes: Float64) -> tuple[Float64, Float64]:
    """Weights (n + 1, F) and intercepts (n + 1,) of the log likelihood ratio: of all samples, then without each."""
    mean = z.mean(axis=0)
    means: Float64 = np.concatenate([mean[None], mean - (z - mean) / (len(z) - 1)])
    weights: Float64 = np.asarray((means - photographs_mean) @ axes, np.float64)
    intercepts: Float64 = -0.5 * np.einsum("nf,nf->n", weights, means + photographs_mean)
    return weights, intercepts


def _placements(
    stratum: StratumReference, z: Float64, photographs: Float64, axes: Float64, temperature: float
) -> tuple[Float64, Float64]:
    """Share of photographs (t, F) below each sample (n, F), (n,): as things are, and with the others as a family."""
    weights, intercepts = _directions(z, stratum.held_out.mean(axis=0), axes)
    old_samples, old_photographs = logits_of(z, stratum), logits_of(photographs, stratum)
    left_out = np.einsum("nf,nf->n", z, weights[1:]) + intercepts[1:]
    new_samples = with_family(z, temperature * left_out[:, None], stratum)[:, 0]
    new_photographs = with_family(photographs, temperature * (photographs @ weights[1:].T + intercepts[1:]), stratum)
    old = _share_below(old_photographs, old_samples)
    new = (new_photographs < new_samples).mean(axis=0) + 0.5 * (new_photographs == new_samples).mean(axis=0)
    return old, new


def _temperature(samples: Float64, photographs: Float64) -> float:
    """The factor in 0-1 that makes the ratios of samples left out and of photographs the best calibrated."""

    def loss(factor: float) -> float:
        return float(np.logaddexp(0.0, -factor * samples).mean() + np.logaddexp(0.0, factor * photographs).mean())

    return float(scipy.optimize.minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded").x)


def _with(stratum: StratumReference, direction: FamilyDirection) -> StratumReference:
    return replace(stratum, families={**stratum.families, "": direction})


def _balanced(stratum: StratumReference, families: Mapping[str, FamilyDirection]) -> StratumReference:
    """With these families, and the offset that keeps the photographs' logit at `OPERATING_FPR`."""
    bare = replace(stratum, families={}, family_offset=np.zeros(()))
    if not families:
        return bare
    changed = replace(bare, families=families)
    offset = _cut(logits_of(stratum.held_out, changed)) - _cut(logits_of(stratum.held_out, bare))
    return replace(changed, family_offset=np.array(offset))


def _cut(logits: Float64) -> float:
    return float(np.quantile(logits, 1.0 - OPERATING_FPR))


def _share_below(photographs: Float64, samples: Float64) -> Float64:
    """Share of photographs below each sample, ties half: the mean over samples is the AUC."""
    ordered = np.sort(photographs)
    lower, upper = (np.searchsorted(ordered, samples, side=side) for side in ("left", "right"))
    return (lower + upper) / (2.0 * ordered.size)


def _auc(photographs: Float64, generated: Float64) -> float:
    return float(_share_below(photographs, generated).mean()) if generated.size else float("nan")


def _gate(trials: Mapping[str, _Trial], z: Mapping[str, Float64]) -> Gate:
    old = np.mean([trial.old for trial in trials.values()], axis=0)
    new = np.mean([trial.new for trial in trials.values()], axis=0)
    rates = np.mean([_cross_fitted_fpr(trial) for trial in trials.values()], axis=0)
    old_fpr, new_fpr = (float(rate) for rate in rates)
    photographs = min(trial.photographs_old.size for trial in trials.values())
    clipped = np.median([(np.abs(rows) >= MAX_Z).mean(axis=1) for rows in z.values()])
    return Gate(
        samples=len(old),
        photographs=photographs,
        old_auc=float(old.mean()),
        new_auc=float(new.mean()),
        luck=float(np.mean([trial.lucky for trial in trials.values()], axis=0).max()),
        old_fpr=old_fpr,
        new_fpr=new_fpr,
        new_fpr_lower=_lower_limit(new_fpr, photographs // 2),
        old_known_auc=float(np.mean([trial.known[0] for trial in trials.values()])),
        new_known_auc=float(np.mean([trial.known[1] for trial in trials.values()])),
        clipped_share=float(clipped),
    )


def _cross_fitted_fpr(trial: _Trial) -> tuple[float, float]:
    """Old and new false positive rate of each half of the photographs, cut and offset from the other half."""
    rates = []
    for start in (0, 1):
        here, there = slice(start, None, 2), slice(1 - start, None, 2)
        cut = _cut(trial.photographs_old[there])
        offset = _cut(trial.photographs_new[there]) - cut
        new = trial.photographs_new[here] - offset
        rates.append([(trial.photographs_old[here] > cut).mean(), (new > cut).mean()])
    old_fpr, new_fpr = np.mean(rates, axis=0).tolist()
    return old_fpr, new_fpr


def _lower_limit(rate: float, n: int) -> float:
    """Of the two-sided 95 % Clopper-Pearson interval.

    A mean over strata counts as one stratum's rate; the cut is as uncertain as the rate, hence half the photographs.
    """
    return float(scipy.special.betaincinv(rate * n, n - rate * n + 1.0, 0.025)) if rate > 0.0 else 0.0


def _check(reference: SpectralReference, name: str, samples: Mapping[str, Float64]) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"family name {name!r}: 1-64 letters, digits, dots, dashes or underscores")
    if name in reference.families:
        raise ValueError(f"family {name} is there already; remove it first")
    counts = {len(values) for values in samples.values()}
    if len(counts) != 1 or not MIN_SAMPLES <= min(counts) <= MAX_SAMPLES:
        raise ValueError(
            f"family {name}: {sorted(counts)} samples by stratum; give the same {MIN_SAMPLES} to"
            f" {MAX_SAMPLES} images in each"
        )
    for stratum, values in samples.items():
        if stratum not in reference.strata:
            raise ValueError(f"family {name}: the reference has no stratum {stratum}")
        if values.ndim != 2 or values.shape[1] != reference.strata[stratum].median.size:
            raise ValueError(f"family {name}: features of {stratum} have shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"family {name}: features of {stratum} are not finite")
