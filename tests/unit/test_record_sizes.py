"""The largest records that the models allow fit their topics: a bound that no record can break needs no handling."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from uuid import UUID

from schemas.decision import Decision, Outcome, Reason, ReasonCode, Thresholds
from schemas.media import (
    Admission,
    AnomalousMedia,
    EvidenceRef,
    Feature,
    MediaFacts,
    SpectralFinding,
    StageScore,
    StageTiming,
    SuspectMedia,
)
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.topics import TOPICS, Topic
from schemas.types import StageName
from schemas.wire import encode

WIDE = "\U0001d11e"  # four bytes in UTF-8
LIMIT = {spec.topic: spec.max_bytes for spec in TOPICS}
NAME = "n" * 128
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
URI = "https:" + WIDE * 4079
ADMISSION = Admission(
    tenant=NAME,
    media_id=NAME,
    decision_uid=UUID(int=2**128 - 1),
    uri=URI,
    source=NAME,
    labels={f"{a}{b}" + "k" * 61: WIDE * 256 for a in string.ascii_lowercase[:4] for b in string.ascii_lowercase[:8]},
    submitted_at=NOW,
    expires_at=NOW,
    admitted_at=NOW,
    policy_version="v" * 64,
    bundle_version="v" * 64,
)
FACTS = MediaFacts(
    sha256="f" * 64,
    size_bytes=2**40,
    format="jpeg",
    lossless=False,
    width=16_384,
    height=16_384,
    jpeg_quality=100,
    chroma_subsampling="4:2:0",
)
SCORE = StageScore(
    stage=StageName.CLASSIFIER, score=1 / 3, p_value=1 / 3, bundle_version="v" * 64, model=WIDE * 128, note=WIDE * 128
)
TIMING = StageTiming(stage=StageName.CLASSIFIER, waited_ms=1e12 / 3, worked_ms=1e12 / 3)
STORED = EvidenceRef(kind=WIDE * 128, uri="s3://" + "b" * 1019, sha256="f" * 64)
"""A store's own URI: buckets and keys of S3 end at 63 and 1,024 characters."""


def test_the_largest_suspect_fits() -> None:
    record = SuspectMedia(admission=ADMISSION, facts=FACTS, scores=(SCORE,) * 8, timings=(TIMING,) * 8)
    assert len(encode(record)) < LIMIT[Topic.SUSPECT]


def test_the_largest_anomalous_media_fit() -> None:
    feature = Feature(name=WIDE * 128, value=1 / 3, percentile=100 / 3)
    finding = SpectralFinding(
        score=1 / 3, p_value=1 / 3, stratum=WIDE * 128, top_features=(feature,) * 32, panel=STORED
    )
    record = AnomalousMedia(
        admission=ADMISSION, facts=FACTS, spectral=finding, scores=(SCORE,) * 8, timings=(TIMING,) * 8
    )
    assert len(encode(record)) < LIMIT[Topic.ANOMALOUS]


def test_the_largest_decision_fits_as_a_finding() -> None:
    probability = 1 / 3
    decision = Decision(
        decision_uid=ADMISSION.decision_uid,
        outcome=Outcome.ESCALATE,
        stage_exited=StageName.CLASSIFIER,
        final_score=probability,
        admission=ADMISSION,
        facts=FACTS,
        scores=(SCORE,) * 8,
        thresholds=Thresholds(
            t1=probability,
            priority=probability,
            t2=probability,
            t3_block=probability,
            t3_clear=probability,
            p12_block=probability,
            uncertain=probability,
        ),
        evidence=(STORED,) * 16,
        reasons=(Reason(code=ReasonCode.SPECTRAL_NOT_APPLICABLE, detail=WIDE * 1024),) * 16,
        timings=(TIMING,) * 8,
        decided_at=NOW,
    )
    assert len(encode_finding(finding_from_decision(decision))) < LIMIT[Topic.ESCALATE]
