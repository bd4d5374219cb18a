"""Whether reviewed images may change the reference: what `few_shot` asks of the samples, and what is asked of labels.

The arithmetic is in docs/learning.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import scipy.special

from pipeline.detection.spectral import few_shot
from pipeline.detection.spectral.few_shot import Gate
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference
from workers.adaptation.records import GateReport

MAX_WRONG = 0.3
"""Share of wrong labels that must be ruled out."""

CLEAR_PLACE = 0.8
"""Place among photographs, left out, from which on a sample stands clear of them; mislabelled ones fall short of it
with at least this probability."""

_MAX_SUSPECTED = MAX_WRONG * CLEAR_PLACE

RULED_OUT_AT = 0.975
"""Confidence of each of two one-sided limits: together a set with `MAX_WRONG` wrong labels passes in 5 % of cases."""


LEAST_TWICE = 11
"""Images judged twice from which on the second reviewers are heard: all agreeing, so many rule out `MAX_WRONG`."""


def upper_limit(count: int, of: int, confidence: float = RULED_OUT_AT) -> float:
    """One-sided Clopper-Pearson limit of a share; 1 without any trial."""
    return 1.0 if count >= of else float(scipy.special.betaincinv(count + 1.0, of - count, confidence))


def lower_limit(count: float, of: int, confidence: float = RULED_OUT_AT) -> float:
    """One-sided Clopper-Pearson limit of a share, whose count may be a mean over strata; 0 without any trial."""
    return float(scipy.special.betaincinv(count, of - count + 1.0, 1.0 - confidence)) if count > 0 else 0.0


def report(
    gate: Gate,
    *,
    reference: SpectralReference,
    changed: SpectralReference | None,
    samples: Mapping[str, Float64],
    controls: Mapping[str, Float64],
    double_reviews: tuple[int, int],
) -> GateReport:
    """All numbers, and every condition that does not hold.

    Args:
        gate: what leaving one sample out showed.
        reference: the one that the family is added to.
        changed: the same with the family; None where `few_shot` refused it.
        samples: features of the family's images, by stratum.
        controls: the same of reviewed photographs; may be empty.
        double_reviews: images judged twice, and on how many of them reviewers differ.
    """
    places = few_shot.left_out_placements(reference, samples)
    suspected = int((places < CLEAR_PLACE).sum())
    twice, differing = double_reviews
    suspected_limit, disagreement_limit = upper_limit(suspected, gate.samples), upper_limit(differing, twice)
    count = len(next(iter(controls.values()))) if controls else 0
    old, new, new_lower = _control_rates(reference, changed, controls, count)
    failures = [*gate.failures()]
    if not labels_hold(suspected_limit, disagreement_limit):
        failures.append(
            f"wrong labels are not ruled out: {suspected} of {gate.samples} samples stand no clearer of photographs "
            f"than mislabelled ones do (upper limit {suspected_limit:.2f}, needed: below {_MAX_SUSPECTED:.2f}), "
            f"and reviewers differ on {differing} of {twice} images that two have judged (upper limit "
            f"{disagreement_limit:.2f}, needed: below {MAX_WRONG:.2f}); have more of them judged twice"
        )
    if twice >= LEAST_TWICE and differing >= MAX_WRONG * twice:
        failures.append(
            f"reviewers differ on {differing} of {twice} images that two have judged, as if {MAX_WRONG:.0%} of all "
            "labels were wrong, whatever the spectra of the others say"
        )
    if old is not None and new is not None and new_lower is not None and new_lower > max(few_shot.OPERATING_FPR, old):
        failures.append(
            f"the false positive rate on {count} reviewed photographs rises from {old:.3f} to {new:.3f} (lower limit "
            f"{new_lower:.3f})"
        )
    return GateReport(
        samples=gate.samples,
        photographs=gate.photographs,
        old_auc=_known(gate.old_auc),
        new_auc=_known(gate.new_auc),
        luck=_known(gate.luck),
        old_fpr=_known(gate.old_fpr),
        new_fpr=_known(gate.new_fpr),
        new_fpr_lower=_known(gate.new_fpr_lower),
        old_known_auc=_known(gate.old_known_auc),
        new_known_auc=_known(gate.new_known_auc),
        clipped_share=_known(gate.clipped_share),
        suspected=suspected,
        suspected_limit=suspected_limit,
        double_reviews=twice,
        disagreements=differing,
        disagreement_limit=disagreement_limit,
        controls=count,
        control_fpr_old=old,
        control_fpr_new=new,
        control_fpr_new_lower=new_lower,
        failures=tuple(failure[:1024] for failure in failures),
    )


def labels_hold(suspected_limit: float, disagreement_limit: float) -> bool:
    """Whether one of two independent witnesses, the spectra or a second reviewer, rules out `MAX_WRONG`."""
    return suspected_limit < _MAX_SUSPECTED or disagreement_limit < MAX_WRONG


def _control_rates(
    reference: SpectralReference, changed: SpectralReference | None, controls: Mapping[str, Float64], count: int
) -> tuple[float | None, float | None, float | None]:
    if changed is None or not count:
        return None, None, None
    old, new = (float(few_shot.alarms(each, controls).mean()) for each in (reference, changed))
    return old, new, lower_limit(new * count, count)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
