"""From feature values to p-values, percentiles and a probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special

from pipeline.detection.spectral import pvalues
from pipeline.detection.spectral.density import mahalanobis, neighbour_distance, standardised
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import QUANTILE_LEVELS, StratumReference

FAMILY_SHARE = 0.5
"""Prior share of the added families, together, among synthetic media; the head stands for the rest."""

MAX_FAMILY_LOGIT = 4.0
"""A family's log likelihood ratio is clipped to +- this."""


@dataclass(frozen=True, slots=True)
class Scored:
    """`probability` of synthetic at the head's prior, `p_value` of the photograph hypothesis.

    `percentiles` (F,) among the photographs, 0-100; `contributions` (F,) to the head's logit. `family_logits`:
    bounded log likelihood ratio of each added family against photographs.
    """

    probability: float
    p_value: float
    percentiles: Float64
    contributions: Float64
    family_logits: dict[str, float]


@dataclass(frozen=True, slots=True)
class PhotographPValues:
    """Of n images, each (n,): by either distance, and over the near-independent features by either combination.

    `combined` is their Cauchy combination, a statistic and no p-value: see `photograph_p_values`.
    """

    mahalanobis: Float64
    neighbours: Float64
    stouffer: Float64
    min_p: Float64
    combined: Float64


def score(values: Float64, reference: StratumReference) -> Scored:
    """Score one image's features (F,), in the order of `features.names_for`."""
    z = standardised(values, reference.median, reference.scale)
    contributions = reference.weights * z
    family_logits = {name: float(logits[0]) for name, logits in family_evidence(z[None], reference).items()}
    return Scored(
        probability=float(scipy.special.expit(logits_of(z[None], reference)[0])),
        p_value=float(photograph_p_values(z[None], reference)[0]),
        percentiles=percentiles(values, reference.quantiles),
        contributions=contributions,
        family_logits=family_logits,
    )


def photograph_p_values(z: Float64, reference: StratumReference) -> Float64:
    """p-values of standardised rows (n, F): the combined value ranked among the third part's photographs, (n,)."""
    return pvalues.conformal_p_values(-np.log(first_ranking(z, reference).combined), reference.calibration)


def first_ranking(z: Float64, reference: StratumReference) -> PhotographPValues:
    """Ranks of standardised rows (n, F) among the second part's photographs, and what combines them."""
    whitened = (z - reference.mean) @ reference.whitening
    by_distance = pvalues.conformal_p_values(mahalanobis(whitened), reference.mahalanobis_ranks)
    by_neighbours = pvalues.conformal_p_values(
        neighbour_distance(whitened, reference.neighbours), reference.neighbour_ranks
    )
    single = pvalues.two_sided(z[:, reference.independent > 0], reference.feature_ranks)
    ranked = (by_distance, by_neighbours, pvalues.stouffer(single), pvalues.min_p(single))
    return PhotographPValues(*ranked, combined=pvalues.cauchy(np.stack(ranked, axis=1)))


def logits_of(z: Float64, reference: StratumReference) -> Float64:
    """Logit of P(synthetic) at the head's prior for standardised rows (n, F), (n,).

    Synthetic media are a mixture: 1 - `FAMILY_SHARE` what the head was trained on, the rest in equal parts the
    added families. A mixture is bounded by its parts: before the offset, families raise a log likelihood ratio to
    that of the larger of head and `MAX_FAMILY_LOGIT` at most, and lower it by -ln(1 - `FAMILY_SHARE`) at most.
    """
    head = z @ reference.weights + reference.intercept
    if not reference.families:
        return head
    return _mixed(head, np.stack(list(family_evidence(z, reference).values())), reference)


def with_family(z: Float64, evidence: Float64, reference: StratumReference) -> Float64:
    """What `logits_of` would be with one more family, of log likelihood ratios (n, m): of m families in turn, (n, m).

    The offset stays that of the reference.
    """
    head = (z @ reference.weights + reference.intercept)[:, None]
    others = [np.broadcast_to(e[:, None], evidence.shape) for e in family_evidence(z, reference).values()]
    return _mixed(head, np.stack([*others, np.clip(evidence, -MAX_FAMILY_LOGIT, MAX_FAMILY_LOGIT)]), reference)


def _mixed(head: Float64, evidence: Float64, reference: StratumReference) -> Float64:
    prior = scipy.special.logit(reference.prior)
    mixture = np.logaddexp.reduce(evidence, axis=0) + np.log(FAMILY_SHARE / len(evidence))
    result: Float64 = np.logaddexp(head - prior + np.log(1.0 - FAMILY_SHARE), mixture) + prior - reference.family_offset
    return result


def family_evidence(z: Float64, reference: StratumReference) -> dict[str, Float64]:
    """Bounded log likelihood ratio of each family for standardised rows (n, F), (n,) each."""
    return {
        name: np.clip(z @ family.weights + family.intercept, -MAX_FAMILY_LOGIT, MAX_FAMILY_LOGIT)
        for name, family in sorted(reference.families.items())
    }


def percentiles(values: Float64, quantiles: Float64) -> Float64:
    """Place of each value (F,) among the photographs, 0-100, linear between the stored quantiles (9, F)."""
    return np.array([np.interp(v, column, QUANTILE_LEVELS) for v, column in zip(values, quantiles.T, strict=True)])
