"""Last week's cases as a dataset: what people confirmed, with the bytes that were kept of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pipeline.detection.bundle import Bundle
from pipeline.detection.policy import Policy, codec_of
from pipeline.evaluation.layouts.jsonl_manifests import MANIFEST
from pipeline.evaluation.score_row import ScoreRow, write_rows
from pipeline.media.content_store import ContentStore
from pipeline.media.errors import ContentCorrupt, ContentMissing
from schemas.decision import Decision
from schemas.review import Label, ReviewVerdict
from schemas.types import StageName

_LABELS = {Label.GENERATED: True, Label.AI_PROCESSED: False, Label.PHOTOGRAPH: False}


@dataclass(frozen=True, slots=True)
class Exported:
    """How many cases went into the set, and why others did not."""

    cases: int
    undecidable: int
    in_references: int
    without_bytes: int

    @property
    def notes(self) -> tuple[str, ...]:
        """For the report."""
        left = {
            "undecidable": self.undecidable,
            "already in a reference": self.in_references,
            "bytes gone": self.without_bytes,
        }
        reasons = ", ".join(f"{count} {why}" for why, count in left.items() if count)
        text = f"confirmed: {self.cases} cases" + (f"; left out: {reasons}" if reasons else "")
        return (text, "confirmed cases are what was escalated or appealed: harder than the traffic, and no share of it")


def export_confirmed(
    decisions: Iterable[Decision],
    reviews: Mapping[UUID, ReviewVerdict],
    in_references: Set[str],
    store: ContentStore,
    directory: Path,
) -> tuple[Exported, dict[str, Decision]]:
    """Write the images and their manifest into an empty directory that the caller removes again.

    Args:
        decisions: of the window; those without a review are skipped.
        reviews: the latest of each decision.
        in_references: digests of content that a reference was made from; scoring it would flatter.
        store: the fleet's.
        directory: for images in plain; keep it private.

    Returns:
        The counts, and the decision of each key of the set.

    Raises:
        StoreUnavailable: the store is away; nothing is said of a part of the cases.
    """
    counts = dict.fromkeys(("undecidable", "in_references", "without_bytes"), 0)
    found: dict[str, Decision] = {}
    with (directory / MANIFEST).open("w", encoding="utf-8") as manifest:
        for decision in decisions:
            review = reviews.get(decision.decision_uid)
            if review is None:
                continue
            data = _bytes(decision, review, in_references, store, counts)
            if data is None or decision.facts is None:
                continue
            key = str(decision.decision_uid)
            (directory / key).write_bytes(data)
            manifest.write(json.dumps(_row(key, decision, review)) + "\n")
            found[key] = decision
    return Exported(len(found), **counts), found


def _bytes(
    decision: Decision,
    review: ReviewVerdict,
    in_references: Set[str],
    store: ContentStore,
    counts: dict[str, int],
) -> bytes | None:
    if review.label not in _LABELS:
        counts["undecidable"] += 1
    elif decision.facts is None:
        counts["without_bytes"] += 1
    elif decision.facts.sha256 in in_references:
        counts["in_references"] += 1
    else:
        try:
            return store.get(decision.admission.tenant, decision.facts.sha256)
        except (ContentMissing, ContentCorrupt):
            counts["without_bytes"] += 1
    return None


def _row(key: str, decision: Decision, review: ReviewVerdict) -> dict[str, str]:
    assert decision.facts is not None  # noqa: S101 - `_bytes` gave some
    return {
        "path": key,
        "label": "ai" if _LABELS[review.label] else "real",
        "source": decision.admission.source or "none",
        "sha256": decision.facts.sha256,
    }


def write_scores_then(
    path: Path, decisions: Mapping[str, Decision], labels: Mapping[str, bool], bundle: Bundle
) -> tuple[int, int]:
    """The scores that the fleet decided on, fused by the policy of today, so that only the models differ.

    Left out is media that passed at stage 1, which has no spectral score to fuse, and what other models decided: they
    chose it, so any other models look worse on it, as whoever is measured on another's best cases does.

    Returns:
        How many were written, and how many were left out because other models decided.
    """
    same = {key: d for key, d in decisions.items() if _decided_by(bundle, d)}
    rows = (row for key, d in same.items() if (row := _then(key, d, labels[key], bundle.policy)))
    return write_rows(path, rows), len(decisions) - len(same)


def _decided_by(bundle: Bundle, decision: Decision) -> bool:
    """False also for a spectral reference that was promoted after the bundle was made."""
    own = bundle.manifest.spectral and f"spectral/{bundle.manifest.spectral.file}"
    spectral = [s.model for s in decision.scores if s.stage is StageName.SPECTRAL]
    return decision.admission.bundle_version == bundle.version and all(model == own for model in spectral)


def _then(key: str, decision: Decision, synthetic: bool, policy: Policy) -> ScoreRow | None:
    scores = {s.stage: s for s in decision.scores}
    first, second = scores.get(StageName.CLASSIFIER), scores.get(StageName.SPECTRAL)
    if first is None or first.score is None or second is None or second.score is None:
        return None
    source = decision.admission.source or "none"
    return ScoreRow(
        key=key,
        synthetic=synthetic,
        source=source,
        group=source,
        generator="unknown",
        base="unknown",
        stratum=second.note or "",
        classifier=first.score,
        spectral=second.score,
        fused=policy.fuse12(first.score, second.score, codec_of(second.note or "")),
    )
