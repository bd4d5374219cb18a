"""From a review on its topic to a labelled sample: the archive knows what was decided, and by which rules."""

from __future__ import annotations

from pipeline.evidence.archive import Archive, ArchivedDecision
from pipeline.media.errors import ContentErased, ContentMissing
from schemas.decision import Decision, Outcome
from schemas.ocsf import decision_from_finding
from schemas.review import ReviewVerdict
from schemas.types import StageName
from workers.adaptation.records import LabelledSample


class NotArchived(Exception):
    """The archive does not know the decision yet, or keeps none of that kind; it may come."""


class NotLearnable(Exception):
    """Nothing can be learned from this review; the text says why."""


def labelled(verdict: ReviewVerdict, archive: Archive) -> LabelledSample:
    """The sample that a review makes.

    Raises:
        NotArchived, NotLearnable: see each.
        ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
    """
    records = archive.get(verdict.decision_uid)
    if not records:
        raise NotArchived(f"decision {verdict.decision_uid} is not archived")
    decision = _decision(records[0], archive)
    admission = decision.admission
    if (admission.tenant, admission.media_id) != (verdict.tenant, verdict.media_id):
        raise NotLearnable(f"review {verdict.review_id} names other media than its decision {verdict.decision_uid}")
    if decision.facts is None:
        raise NotLearnable(f"decision {verdict.decision_uid} was made without the media's bytes")
    spectral = next((score for score in decision.scores if score.stage is StageName.SPECTRAL), None)
    return LabelledSample(
        review_id=verdict.review_id,
        decision_uid=verdict.decision_uid,
        tenant=verdict.tenant,
        content_sha256=decision.facts.sha256,
        label=verdict.label,
        family=verdict.family,
        reviewer=verdict.reviewer,
        reviewed_at=verdict.reviewed_at,
        outcome=decision.outcome,
        stage_exited=decision.stage_exited,
        source=admission.source,
        stratum=spectral.note if spectral is not None else None,
        bundle_version=admission.bundle_version,
        policy_version=admission.policy_version,
        sampling_probability=1.0 if decision.outcome is Outcome.ESCALATE else None,
    )


def _decision(archived: ArchivedDecision, archive: Archive) -> Decision:
    """As the machine made it: records are in the order of their sequence."""
    try:
        return decision_from_finding(archive.value(archived))
    except (ContentMissing, ContentErased) as error:
        raise NotLearnable(f"decision {archived.decision_uid} is no longer readable: {error}") from error
