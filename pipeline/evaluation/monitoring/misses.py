"""What stage 1 misses, from the audit sample: bounds where nobody can say, never a guess.

A cascade misses at least what its first stage misses, and nothing behind that stage sees it. So a drawn share of the
passes goes through the later stages all the same. They say `real` (they release it) or `generated` (they would block);
everything they would escalate says nothing until a person looks. Without a working MLLM nothing is ever blocked, so
then only people can find a miss, and the bounds are as wide as that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.monitoring.inventory import Inventory, SourceTraffic
from pipeline.evaluation.monitoring.weighted import WeightedShare, weighted_share
from pipeline.evaluation.tables import Figure
from schemas.decision import Decision, Outcome, ReasonCode, Risk
from schemas.review import Label, ReviewVerdict
from schemas.shadow import AuditSample
from schemas.types import StageName


class Truth(StrEnum):
    """What is known of a media item, and from whom. A processed photograph is no generated image."""

    GENERATED_BY_PEOPLE = "generated, people say"
    REAL_BY_PEOPLE = "not generated, people say"
    GENERATED_BY_STAGES = "generated, later stages say"
    REAL_BY_STAGES = "not generated, later stages say"
    UNLABELLED = "nobody can say yet"

    @property
    def generated(self) -> bool:
        """Said to be generated."""
        return self in (Truth.GENERATED_BY_PEOPLE, Truth.GENERATED_BY_STAGES)


_BY_PEOPLE = {
    Label.GENERATED: Truth.GENERATED_BY_PEOPLE,
    Label.AI_PROCESSED: Truth.REAL_BY_PEOPLE,
    Label.PHOTOGRAPH: Truth.REAL_BY_PEOPLE,
}
_BY_STAGES = {Outcome.BLOCK: Truth.GENERATED_BY_STAGES, Outcome.PASS: Truth.REAL_BY_STAGES}


def truth_of(decision: Decision, review: ReviewVerdict | None) -> Truth:
    """People go before machines; a review that could not decide leaves it open.

    Where the spectrum says nothing stage 2 releases on the classifier's word, which is the one in question.
    """
    if review is not None:
        return _BY_PEOPLE.get(review.label, Truth.UNLABELLED)
    if any(reason.code is ReasonCode.SPECTRAL_NOT_APPLICABLE for reason in decision.reasons):
        return Truth.UNLABELLED
    return _BY_STAGES.get(decision.outcome, Truth.UNLABELLED)


class Bounds(Figure):
    """The lowest and the highest value that what is known allows, and the 95 % interval around both."""

    low: float | None
    high: float | None
    interval: Interval


class MissReport(Figure):
    """See the module. Shares and FNR are weighted by the inverse probability of the draw.

    `represented`: the sum of these weights, which estimates `released` when no sample is missing.
    """

    since: datetime
    until: datetime
    released: int
    sampled: int
    represented: float
    sampling_probabilities: tuple[float, ...]
    truths: dict[Truth, int]
    mllm_heard: int
    missed_share: Bounds
    flagged_generated: int
    flagged_unlabelled: int
    fnr: Bounds
    sources: tuple[SourceTraffic, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Flagged:
    """What stage 1 sent on, by what is known of it; and what it released."""

    released: int = 0
    truths: Counter[Truth] = field(default_factory=Counter)

    def add(self, decision: Decision, review: ReviewVerdict | None) -> None:
        if decision.risk is Risk.RELEASED:
            self.released += 1
        elif any(s.stage is StageName.CLASSIFIER and s.score is not None for s in decision.scores):
            self.truths[truth_of(decision, review)] += 1


def miss_report(
    decisions: Iterable[Decision],
    samples: Iterable[AuditSample],
    reviews: Mapping[UUID, ReviewVerdict],
    since: datetime,
    until: datetime,
) -> MissReport:
    """Estimate the false negative rate of stage 1 on the fleet's own traffic.

    Args:
        decisions: all of the window, each once.
        samples: of the same window, each once; those of passes before it are left out.
        reviews: the latest of each decision.
        since: for the report's head.
        until: likewise.
    """
    flagged, inventory = _Flagged(), Inventory()
    for decision in decisions:
        flagged.add(decision, reviews.get(decision.decision_uid))
        inventory.add(decision)
    drawn = [(s, truth_of(s.decision, reviews.get(s.decision.decision_uid))) for s in samples]
    for sample, _ in drawn:
        inventory.sampled(sample.decision)
    known = weighted_share((truth.generated, s.probability) for s, truth in drawn)
    possible = weighted_share((truth.generated or truth is Truth.UNLABELLED, s.probability) for s, truth in drawn)
    missed = _bounds(known, possible)
    sent_on = sum(count for truth, count in flagged.truths.items() if truth.generated)
    open_sent_on = flagged.truths[Truth.UNLABELLED]
    heard = sum(any(x.stage is StageName.MLLM and x.score is not None for x in s.decision.scores) for s, _ in drawn)
    truths = Counter(truth for _, truth in drawn)
    return MissReport(
        since=since,
        until=until,
        released=flagged.released,
        sampled=len(drawn),
        represented=sum(1.0 / s.probability for s, _ in drawn),
        sampling_probabilities=tuple(sorted({s.probability for s, _ in drawn})),
        truths={truth: truths[truth] for truth in Truth},
        mllm_heard=heard,
        missed_share=missed,
        flagged_generated=sent_on,
        flagged_unlabelled=open_sent_on,
        fnr=_rate(missed, flagged.released, sent_on, open_sent_on),
        sources=inventory.report(),
        notes=(
            *_missing([s.probability for s, _ in drawn], flagged.released),
            *_notes(len(drawn), flagged.released, truths, heard),
        ),
    )


def _bounds(known: WeightedShare, possible: WeightedShare) -> Bounds:
    return Bounds(low=known.share, high=possible.share, interval=Interval(known.interval.low, possible.interval.high))


def _rate(missed: Bounds, released: int, flagged: int, unlabelled: int) -> Bounds:
    """Missed / (missed + flagged): lowest with every open flagged item generated, highest with none."""

    def rate(share: float | None, sent_on: int) -> float | None:
        if share is None:
            return None
        misses = share * released
        return misses / (misses + sent_on) if misses + sent_on > 0 else None

    low = rate(missed.interval.low, flagged + unlabelled)
    high = rate(missed.interval.high, flagged)
    return Bounds(
        low=rate(missed.low, flagged + unlabelled),
        high=rate(missed.high, flagged),
        interval=Interval(0.0 if low is None else low, 1.0 if high is None else high),
    )


def _missing(probabilities: Sequence[float], released: int) -> Iterable[str]:
    """Fewer samples than chance explains: three standard errors of the Horvitz-Thompson total under independent draws.

    They are no random part of the draw: what stage 2 releases is measured at once, what it suspects waits for stage 3.
    """
    represented = sum(1.0 / p for p in probabilities)
    error = math.sqrt(sum((1.0 - p) / p**2 for p in probabilities))
    if probabilities and represented < released - 3.0 * error:
        yield (
            f"the samples stand for {represented:.0f} of {released} released: the rest were not drawn or not kept, or "
            "are still on their way, and what takes longest is what stage 2 suspects, so more may be missed than the "
            "bounds say; end the window earlier"
        )


def _notes(sampled: int, released: int, truths: Counter[Truth], heard: int) -> Iterable[str]:
    if not released:
        yield "stage 1 released nothing: it cannot have missed anything, and nothing can be drawn"
    elif not sampled:
        yield "no sample yet: the rate may be anything; check classifier.audit_sample.share"
    if sampled and not heard:
        yield (
            "the MLLM gave no opinion on any sample, so no stage could say `generated`: a miss is seen only where a "
            "person reviews the sample, and what stage 2 releases is taken for real on its word alone"
        )
    if truths[Truth.UNLABELLED]:
        yield (
            f"{truths[Truth.UNLABELLED]} of {sampled} samples have no label: the low bound takes none of them for "
            "generated, the high bound all; review them to bring the bounds together"
        )
    by_people = truths[Truth.GENERATED_BY_PEOPLE] + truths[Truth.REAL_BY_PEOPLE]
    if sampled and by_people < sampled:
        yield (
            f"people labelled {by_people} of {sampled} samples; the other labels are those of stages that err "
            "themselves, on images that are like those which stage 1 missed"
        )
