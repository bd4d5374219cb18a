"""The learning loop, turned by its caller: reviews in, candidates out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from uuid import UUID

import structlog

from pipeline.evidence.archive import Archive
from pipeline.media.errors import ContentCorrupt, ContentMissing
from pipeline.observability.metrics import Metrics
from pipeline.streaming.transport import RawRecord
from schemas.media import DEFAULT_TENANT
from schemas.review import ReviewVerdict
from schemas.wire import WireError, decode
from workers.adaptation.candidate import Builder, Current, sample_set
from workers.adaptation.collect import NotArchived, NotLearnable, labelled
from workers.adaptation.labels import LabelSet, taught_by
from workers.adaptation.records import Candidate, LabelledSample, Refusal
from workers.adaptation.store import ReferenceStore

log = structlog.get_logger("mediasieve")

MAX_WAITING = 100_000
RETRIED_AT_ONCE = 100
"""Waiting reviews that one `retry` looks at: each costs a listing of the archive."""

MAX_WAIT = timedelta(days=7)
"""A decision that is not archived so long after its review is of a kind that never is."""


@dataclass(slots=True)
class Learner:
    """Reviews become labelled samples once their decisions are archived; families with enough samples are tried.

    Everything is put-if-absent under a name of its own, so a loop that dies anywhere, or runs twice, does no harm:
    reviews are read again from the topic's start.
    """

    archive: Archive
    store: ReferenceStore
    builder: Builder
    current: Callable[[], Current]
    """The reference that decides now."""

    offer: Callable[[Candidate], None]
    """What becomes of a candidate that the gate lets through; called again with one that still waits."""

    tenants: Collection[str] = (DEFAULT_TENANT,)
    """Whose reviewers teach; what others say is kept and not learned from."""

    turn: Callable[[], None] = lambda: None
    """Called before each of many reads of a store, which together may take long."""

    metrics: Metrics = field(default_factory=Metrics)
    _waiting: dict[UUID, ReviewVerdict] = field(default_factory=dict)
    _samples: dict[str, LabelledSample] = field(default_factory=dict)
    _unreadable: set[str] = field(default_factory=set)
    _changed: bool = True

    def take(self, record: RawRecord) -> None:
        """One record of the topic of reviews.

        Raises:
            UnknownMajorVersion: of a newer release.
            StoreUnavailable: the review waits; `retry` looks at it again.
        """
        try:
            verdict = decode(ReviewVerdict, record.value)
        except WireError as error:
            self._drop("review_unreadable", "unreadable", place=f"{record.tp}@{record.offset}", detail=error.detail)
            return
        self._waiting[verdict.review_id] = verdict
        if len(self._waiting) > MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            self._drop("review_forgotten", "forgotten", review_id=str(oldest), detail=f"more than {MAX_WAITING} wait")
        self._try(verdict)

    def retry(self) -> None:
        """Look again for what was not archived yet, at most `RETRIED_AT_ONCE`, each in its turn.

        Raises:
            StoreUnavailable: try again later.
        """
        for verdict in list(islice(self._waiting.values(), RETRIED_AT_ONCE)):
            self.turn()
            self._try(verdict)

    @property
    def waiting(self) -> int:
        """Reviews whose decision is not archived."""
        return len(self._waiting)

    def learn(self) -> list[Candidate | Refusal]:
        """Try each family whose samples changed since it was tried last; returns what came of it.

        Raises:
            StoreUnavailable: try again later.
        """
        if not self._changed:
            return []
        labels, current = self._labels(), self.current()
        found: list[Candidate | Refusal] = []
        for family in labels.families():
            result = self._built(current, labels, family)
            if result is not None:
                found.append(result)
                current = self.current()  # a candidate may decide by now
        self._changed = False
        return found

    def _labels(self) -> LabelSet:
        """Samples never change: each is read once."""
        for key in self.store.sample_keys():
            if key in self._samples or key in self._unreadable:
                continue
            self.turn()
            try:
                self._samples[key] = self.store.sample(key)
            except (ContentCorrupt, ContentMissing) as error:
                self._unreadable.add(key)
                log.error("sample_unreadable", key=key, detail=str(error))
        return LabelSet.of(taught_by(self._samples.values(), self.tenants))

    def _built(self, current: Current, labels: LabelSet, family: str) -> Candidate | Refusal | None:
        """None where there is nothing new to try."""
        if family in current.reference.families or len(labels.members(family)) < self.builder.min_samples:
            return None
        waiting = self._that_waits(current, labels, family)
        if waiting is not None:
            self.offer(waiting)  # the loop may have died before
            return None
        if self.store.is_refused(current.base, family, sample_set(current, labels, family)):
            return None
        result = self.builder.build(current, labels, family)
        if isinstance(result, Refusal):
            self.metrics.count("mediasieve_adaptation_trials_total", "refused")
            log.warning("candidate_refused", family=family, why=result.why, left_out=len(result.left_out))
        else:
            self.metrics.count("mediasieve_adaptation_trials_total", "built")
            log.info("candidate_built", family=family, version=result.version, samples=len(result.samples))
            self.offer(result)
        return result

    def _that_waits(self, current: Current, labels: LabelSet, family: str) -> Candidate | None:
        """The newest candidate of the family on what decides, unless people have changed their mind on its samples."""
        candidates = reversed(self.store.candidates(current.base))
        found = next((c for c in candidates if c.family == family and c.parent == current.version), None)
        return None if found is None or labels.contradicted(found.samples, family) else found

    def _try(self, verdict: ReviewVerdict) -> None:
        if self.store.has_sample(verdict.review_id):
            del self._waiting[verdict.review_id]
            return
        try:
            sample = labelled(verdict, self.archive)
        except NotArchived as error:
            del self._waiting[verdict.review_id]
            if self.builder.now() - verdict.reviewed_at < MAX_WAIT:
                self._waiting[verdict.review_id] = verdict  # behind the others
            else:
                self._drop("review_not_learnable", "not_archived", review_id=str(verdict.review_id), detail=str(error))
            return
        except (NotLearnable, ContentCorrupt) as error:
            del self._waiting[verdict.review_id]
            self._drop("review_not_learnable", "not_learnable", review_id=str(verdict.review_id), detail=str(error))
            return
        self.store.put_sample(sample)
        del self._waiting[verdict.review_id]
        self.metrics.count("mediasieve_adaptation_reviews_total", "labelled")
        self._changed = True

    def _drop(self, event: str, result: str, **facts: str) -> None:
        self.metrics.count("mediasieve_adaptation_reviews_total", result)
        log.warning(event, **facts)
