"""The facts of one decision, as `mediasieve explain` collects them: plain values, so that every view shows the same.

What is absent has a sentence that says so and why; nothing is left out in silence.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import Field

from schemas.base import Part
from schemas.decision import Mode, Outcome, ReasonCode, Risk, Thresholds
from schemas.media import Admission, Feature, MediaFacts
from schemas.review import Label
from schemas.types import StageName

STORY_VERSION = "1.0"


class Held(StrEnum):
    """What became of a piece of evidence when it was read for this page."""

    VERIFIED = "verified"
    MISSING = "missing"
    ERASED = "erased"
    DIGEST_DIFFERS = "digest_differs"
    UNREADABLE = "unreadable"
    NOT_KEPT = "not_kept"


class Proved(StrEnum):
    """Whether the audit log vouches for the record of this decision."""

    VERIFIED = "verified"
    FAILED = "failed"
    ABSENT = "absent"


class Mark(Part):
    """A threshold on a gauge; `meaning` says what happens on which side of it."""

    name: str
    value: float
    meaning: str


class Gauge(Part):
    """One number on the scale of P(synthetic), 0 to 1, with the thresholds that it was compared with.

    `value` None: nothing was measured or kept, and `note` says why.
    """

    label: str
    value: float | None
    marks: tuple[Mark, ...] = ()
    note: str = ""


class StageStory(Part):
    """What one stage did. Times in milliseconds; `said` is one sentence."""

    stage: StageName
    asked: bool
    said: str
    gauges: tuple[Gauge, ...] = ()
    p_value: float | None = None
    model: str | None = None
    note: str | None = None
    bundle_version: str | None = None
    waited_ms: float | None = None
    worked_ms: float | None = None


class Side(StrEnum):
    """What a reason argues for."""

    OUTCOME = "outcome"
    AGAINST_BLOCK = "against_block"
    AGAINST_PASS = "against_pass"  # noqa: S105 - an outcome, no password
    ORDER = "order"


class ReasonStory(Part):
    """A reason of the decision: its code, the code in words, and the stage's own detail."""

    side: Side
    code: ReasonCode
    words: str
    detail: str


class EvidenceStory(Part):
    """One digest that the decision names, and what lies under it. `size_bytes` of what was read."""

    kind: str
    sha256: str | None
    uri: str | None
    held: Held
    said: str
    size_bytes: int | None = None


class FeatureStory(Part):
    """The spectral features that stood out; `absent` says why there are none."""

    stratum: str | None = None
    features: tuple[Feature, ...] = ()
    absent: str = ""


class AnswerStory(Part):
    """One question of the dialogue and the model's raw answer. `text` None: not readable, see `said`."""

    name: str
    question: str
    text: str | None
    said: str
    raw_sha256: str
    finish: str | None
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    fault: str | None


class MllmStory(Part):
    """The dialogue with the MLLM. `absent` says why there is none."""

    absent: str = ""
    model: str | None = None
    backend: str | None = None
    dialogue_sha256: str | None = None
    passes: int | None = None
    probability: float | None = None
    raw_probability: float | None = None
    basis: str | None = None
    calibrated: bool | None = None
    coverage: float | None = None
    shares: dict[str, float] = Field(default_factory=dict)
    report: dict[str, Any] | None = None
    failure: str | None = None
    answers: tuple[AnswerStory, ...] = ()


class EventStory(Part):
    """One event of the finding. `place`: topic[partition]@offset, None: not known; `sha256` of the record."""

    sequence: int
    activity: str
    outcome: Outcome
    risk: Risk | None
    at: datetime
    event_uid: str | None
    place: str | None
    sha256: str
    said: str


class ReviewStory(Part):
    """What a person said of it."""

    review_id: str
    label: Label
    reviewer: str
    rationale: str
    reviewed_at: datetime


class ErasureStory(Part):
    """A destroyed payload of this media item."""

    cause: str
    actor: str
    detail: str
    erased_at: datetime
    sha256s: tuple[str, ...]


class ProofStory(Part):
    """The audit log's word on the record. Sizes in leaves; `root` in base64 as the checkpoint has it."""

    proved: Proved
    said: str
    tree: str | None = None
    leaf_index: int | None = None
    tree_size: int | None = None
    root: str | None = None
    signature: str = ""
    record_sha256: str | None = None


class Verdict(Part):
    """What the record of the machine's verdict says; gone when that record was erased."""

    stage_exited: StageName
    final_score: float | None
    mode: Mode
    admission: Admission
    facts: MediaFacts | None
    thresholds: Thresholds
    stages: tuple[StageStory, ...]
    final: tuple[Gauge, ...]
    reasons: tuple[ReasonStory, ...]
    product_version: str | None


class Story(Part):
    """Everything that is known of one decision. `verdict` None: its record cannot be read, `headline` says why."""

    story_version: str = STORY_VERSION
    decision_uid: UUID
    tenant: str
    headline: str
    later: str = ""
    source: str
    outcome: Outcome
    risk: Risk | None
    decided_at: datetime
    verdict: Verdict | None
    spectrum: FeatureStory
    mllm: MllmStory
    evidence: tuple[EvidenceStory, ...]
    events: tuple[EventStory, ...]
    reviews: tuple[ReviewStory, ...]
    erasures: tuple[ErasureStory, ...]
    proof: ProofStory
    other_decisions: tuple[UUID, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """False when a digest or the proof contradicts the record: the story must not be believed as it stands."""
        differs = any(e.held is Held.DIGEST_DIFFERS for e in self.evidence)
        return self.proof.proved is not Proved.FAILED and not differs
