"""What the learning loop keeps in the content store, as small JSON objects.

    references/labelled/{review id}.json              `LabelledSample`
    references/candidates/{base}/{version}.json       `Candidate`: what a reference was made of, and what the gate said
    references/refused/{base}/{family}/{sample set}.json   `Refusal`
    references/artefacts/{sha256}.npz                 the reference itself, in plain: sums over samples, no image
    references/history/{base}/{sequence}.json         every pointer that was published, as it was signed

They hold digests, tenants and names of reviewers, no media id and no URI of a producer.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import Part
from schemas.decision import Outcome
from schemas.reference import ReferenceArtefact
from schemas.review import Label
from schemas.types import FamilyName, Identifier, Sha256, ShortText, StageName, Text, Timestamp, Version

Inclusion = Annotated[float, Field(gt=0.0, le=1.0)]


class LabelledSample(Part):
    """One reviewer's label of one image, and where it comes from.

    `sampling_probability` is that with which the image came before reviewers: 1 for an escalation, None where somebody
    chose it, as in an appeal. `stratum` is what the spectral stage called it.
    """

    review_id: UUID
    decision_uid: UUID
    tenant: Identifier
    content_sha256: Sha256
    label: Label
    family: FamilyName | None
    reviewer: Identifier
    reviewed_at: Timestamp
    outcome: Outcome
    stage_exited: StageName
    source: Identifier | None
    stratum: ShortText | None
    bundle_version: Version
    policy_version: Version
    sampling_probability: Inclusion | None


class GateReport(Part):
    """The numbers by which a candidate was let through or refused; see docs/learning.md for each.

    The first part is that of `few_shot.Gate`, NaN as null. `suspected` of the samples stand no clearer of photographs
    than mislabelled ones would, at most `suspected_limit` of such sets do; `disagreements` of `double_reviews`;
    `controls` reviewed photographs, of which `control_fpr_old` and `control_fpr_new` lie above the operating point.
    """

    samples: int
    photographs: int
    old_auc: float | None
    new_auc: float | None
    luck: float | None
    old_fpr: float | None
    new_fpr: float | None
    new_fpr_lower: float | None
    old_known_auc: float | None
    new_known_auc: float | None
    clipped_share: float | None
    suspected: int
    suspected_limit: float
    double_reviews: int
    disagreements: int
    disagreement_limit: float
    controls: int
    control_fpr_old: float | None
    control_fpr_new: float | None
    control_fpr_new_lower: float | None
    failures: tuple[Text, ...] = ()


class Candidate(Part):
    """A reference with one family more than `parent`, that the gate let through. `left_out`: review id and why."""

    version: Sha256
    base: Sha256
    parent: Sha256
    family: FamilyName
    artefact: ReferenceArtefact
    strata: tuple[ShortText, ...]
    samples: tuple[LabelledSample, ...]
    left_out: dict[UUID, Text]
    gate: GateReport
    bundle_version: Version
    built_at: Timestamp


class Refusal(Part):
    """A sample set that made no candidate; `sample_set` is the digest of its review ids. Tried again once it grows."""

    base: Sha256
    parent: Sha256
    family: FamilyName
    sample_set: Sha256
    why: Text
    gate: GateReport | None
    left_out: dict[UUID, Text]
    refused_at: Timestamp
