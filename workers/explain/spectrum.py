"""The spectral features that stood out, from the decision's manifest."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.evidence.manifest import Manifest
from pipeline.media.errors import ContentCorrupt
from schemas.decision import Decision
from schemas.types import StageName
from workers.explain.evidence import Piece
from workers.explain.story import FeatureStory

_SAME = ("decision_uid", "outcome", "risk", "stage_exited", "reasons", "final_score", "scores", "thresholds", "facts")


def spectrum_story(decision: Decision, piece: Piece | None) -> FeatureStory:
    """The features of the manifest, or one sentence on why there are none."""
    manifest, why = read_manifest(piece)
    if manifest is not None and manifest.spectral is not None:
        grounds = manifest.spectral
        absent = "" if grounds.features else "The spectral stage noted no feature."
        return FeatureStory(stratum=grounds.stratum, features=grounds.features, absent=absent)
    if decision.stage_exited is StageName.CLASSIFIER:
        return FeatureStory(absent="The spectral stage was not asked.")
    return FeatureStory(absent=f"The features cannot be shown: {why or 'the manifest holds none'}")


def read_manifest(piece: Piece | None) -> tuple[Manifest | None, str]:
    """The manifest, or None and a sentence that says why not."""
    if piece is None:
        return None, "the decision names no manifest."
    if piece.data is None:
        return None, piece.story.said
    try:
        return Manifest.decoded(piece.data), ""
    except ContentCorrupt as error:
        return None, f"the manifest was read, but not understood: {error}."


def contradictions(decision: Decision, piece: Piece | None) -> Iterator[str]:
    """A note for each field in which the manifest says something else than the decision that names it."""
    manifest, _ = read_manifest(piece)
    if manifest is not None:
        for name in _SAME:
            if getattr(manifest, name) != getattr(decision, name):
                yield f"the manifest says something else than the decision in the field {name}"
