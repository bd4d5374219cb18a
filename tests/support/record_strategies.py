"""Hypothesis strategies of valid records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from schemas.decision import Decision, Mode, Outcome, Reason, ReasonCode, Risk, Thresholds
from schemas.media import Admission, EvidenceRef, MediaFacts, MediaReference, StageScore, StageTiming
from schemas.types import Priority, StageName

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
probabilities = st.floats(0.0, 1.0)
milliseconds = st.floats(0.0, 1e12)
sha256s = st.text("0123456789abcdef", min_size=64, max_size=64)
zones = st.just(UTC) | st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
timestamps = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001 - bounds


def words(marks: str, max_size: int) -> st.SearchStrategy[str]:
    """A letter or digit, then letters, digits and `marks`."""
    return st.builds(str.__add__, st.sampled_from(LETTERS), st.text(LETTERS + marks, max_size=max_size - 1))


def texts(max_size: int) -> st.SearchStrategy[str]:
    return st.text(max_size=12) | st.just("x" * max_size)


identifiers = words("._:@-", 128)
versions = words("._+-", 64)
uris = st.builds(
    "{}:{}".format,
    st.sampled_from(["s3", "https", "file", "a+b.c-d"]),
    st.text(
        st.characters(min_codepoint=0x21, exclude_characters="\x7f", exclude_categories=["Cs"]), min_size=1, max_size=40
    ),
)
labels = st.dictionaries(words("._/-", 63), st.text(max_size=20), max_size=4)
evidence = st.builds(EvidenceRef, kind=texts(128), uri=uris, sha256=sha256s)

references = st.builds(
    MediaReference,
    uri=uris,
    media_id=st.none() | identifiers,
    sha256=st.none() | sha256s,
    content_type=st.none() | st.just("image/jpeg"),
    size_bytes=st.none() | st.integers(0, 2**40),
    source=st.none() | identifiers,
    tenant=st.none() | identifiers,
    priority=st.sampled_from(Priority),
    submitted_at=st.none() | timestamps,
    expires_at=st.none() | timestamps,
    labels=labels,
    extensions=st.dictionaries(st.text(max_size=8), json_values, max_size=3),
)
admissions = st.builds(
    Admission,
    tenant=identifiers,
    media_id=identifiers,
    decision_uid=st.uuids(),
    uri=uris,
    source=st.none() | identifiers,
    priority=st.sampled_from(Priority),
    labels=labels,
    submitted_at=st.none() | timestamps,
    expires_at=st.none() | timestamps,
    admitted_at=timestamps,
    policy_version=versions,
    bundle_version=versions,
)
facts = st.builds(
    MediaFacts,
    sha256=sha256s,
    size_bytes=st.integers(0, 2**63),
    format=st.sampled_from(["jpeg", "png", "webp", "tiff", "bmp"]),
    lossless=st.booleans(),
    width=st.integers(1, 2**31),
    height=st.integers(1, 2**31),
    jpeg_quality=st.none() | st.integers(1, 100),
    chroma_subsampling=st.sampled_from([None, "4:4:4", "4:2:0", "other"]),
)
scores = st.builds(
    StageScore,
    stage=st.sampled_from(StageName),
    score=st.none() | probabilities,
    p_value=st.none() | probabilities,
    bundle_version=versions,
    model=texts(128),
    note=st.none() | texts(128),
)
timings = st.builds(StageTiming, stage=st.sampled_from(StageName), waited_ms=milliseconds, worked_ms=milliseconds)
thresholds = st.builds(Thresholds, **dict.fromkeys(Thresholds.model_fields, probabilities))
reasons = st.builds(Reason, code=st.sampled_from(ReasonCode), detail=texts(1024))


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Every field at will; only a pass has a risk."""
    outcome = draw(st.sampled_from(Outcome))
    admission = draw(admissions)
    fields: dict[str, Any] = {
        "decision_uid": admission.decision_uid,
        "sequence": draw(st.integers(0, 2**31)),
        "outcome": outcome,
        "risk": draw(st.sampled_from(Risk)) if outcome is Outcome.PASS else None,
        "stage_exited": draw(st.sampled_from(StageName)),
        "final_score": draw(st.none() | probabilities),
        "admission": admission,
        "facts": draw(st.none() | facts),
        "scores": draw(st.lists(scores, max_size=3)),
        "mode": draw(st.sampled_from(Mode)),
        "thresholds": draw(thresholds),
        "evidence": draw(st.lists(evidence, max_size=3)),
        "reasons": draw(st.lists(reasons, min_size=1, max_size=3)),
        "timings": draw(st.lists(timings, max_size=3)),
        "decided_at": draw(timestamps),
    }
    return Decision(**fields)
