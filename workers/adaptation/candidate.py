"""Builds a candidate: the reference that decides, with one more family made of reviewed images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from pipeline.detection.spectral.few_shot import MIN_SAMPLES, FamilyRefused, Gate, add_family
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference
from workers.adaptation import gate as label_gate
from workers.adaptation.labels import LabelSet
from workers.adaptation.records import Candidate, GateReport, Refusal
from workers.adaptation.samples import Contents, Measures, Usable, features_of, usable_of
from workers.adaptation.store import ReferenceStore


@dataclass(frozen=True, slots=True)
class Current:
    """The reference that decides now; `base` is the content hash of the bundle's own."""

    base: str
    reference: SpectralReference
    bundle_version: str

    @property
    def version(self) -> str:
        """Content hash of the one that decides."""
        return self.reference.content_hash


@dataclass(frozen=True, slots=True)
class Builder:
    """Puts what it builds, or why nothing came of it, into the store. `min_samples` is at least that of `few_shot`."""

    store: ReferenceStore
    contents: Contents
    measures: Measures
    now: Callable[[], datetime]
    min_samples: int = MIN_SAMPLES

    def build(self, current: Current, labels: LabelSet, family: str) -> Candidate | Refusal:
        """Try once.

        Raises:
            ValueError: the reference has the family already.
            StoreUnavailable: try again later.
        """
        if family in current.reference.families:
            raise ValueError(f"family {family} is part of the reference {current.version[:12]} already")
        trial = _Trial(current, labels, family)
        members = usable_of(labels.members(family), self.contents, self.measures, trial.left_out)
        least = max(MIN_SAMPLES, self.min_samples)
        if len(members) < least:
            return self._refused(trial, f"{len(members)} usable images, needed are {least}", None)
        controls = usable_of(labels.photographs(), self.contents, self.measures, trial.left_out)
        return self._tried(trial, members, controls)

    def _tried(self, trial: _Trial, members: list[Usable], controls: list[Usable]) -> Candidate | Refusal:
        current, family = trial.current, trial.family
        samples, held_against = features_of(current.reference, members, controls)
        if not samples:
            return self._refused(trial, "the reference holds too few photographs to hold a family against", None)
        changed, gate = _added(current.reference, family, samples)
        report = label_gate.report(
            gate,
            reference=current.reference,
            changed=changed,
            samples=samples,
            controls=held_against,
            double_reviews=trial.labels.double_reviews(family),
        )
        if changed is None or report.failures:
            return self._refused(trial, "; ".join(report.failures), report)
        candidate = Candidate(
            version=changed.content_hash,
            base=current.base,
            parent=current.version,
            family=family,
            artefact=self.store.put_artefact(changed),
            strata=tuple(samples),
            samples=tuple(image.sample for image in members),
            left_out=trial.left_out,
            gate=report,
            bundle_version=current.bundle_version,
            built_at=self.now(),
        )
        self.store.put_candidate(candidate)
        return candidate

    def _refused(self, trial: _Trial, why: str, gate: GateReport | None) -> Refusal:
        refusal = Refusal(
            base=trial.current.base,
            parent=trial.current.version,
            family=trial.family,
            sample_set=sample_set(trial.current, trial.labels, trial.family),
            why=why[:1024],
            gate=gate,
            left_out=trial.left_out,
            refused_at=self.now(),
        )
        self.store.put_refusal(refusal)
        return refusal


@dataclass(frozen=True, slots=True)
class _Trial:
    """What is tried, and which images could not be used."""

    current: Current
    labels: LabelSet
    family: str
    left_out: dict[UUID, str] = field(default_factory=dict)


def sample_set(current: Current, labels: LabelSet, family: str) -> str:
    """Names what a trial rests on: the reference, and every review of the family, of photographs, and in dispute."""
    reviews = sorted(str(a.sample.review_id) for a in (*labels.members(family), *labels.photographs()))
    text = "\n".join((current.version, family, *reviews, f"{labels.double_reviews(family)}"))
    return hashlib.sha256(text.encode()).hexdigest()


def _added(
    reference: SpectralReference, family: str, samples: dict[str, Float64]
) -> tuple[SpectralReference | None, Gate]:
    try:
        return add_family(reference, family, samples)
    except FamilyRefused as refused:
        return None, refused.gate
