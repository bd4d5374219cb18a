"""The projections of any decision: nothing is lost but what is cut, and no text breaks the format."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import generate
from schemas.decision import Decision
from schemas.ocsf import (
    decode_finding,
    encode_finding,
    finding_from_closed_case,
    finding_from_decision,
    finding_from_review,
)
from schemas.review import Label
from schemas.siem import cef_line, ecs_document
from schemas.siem.cef import MAX_LENGTH
from tests.support.cef_reader import read_cef
from tests.support.findings import golden, review_of
from tests.support.ingest_pipeline import ingest
from tests.support.record_strategies import decisions

PIPELINE = json.loads((generate.ROOT.parent / "deploy/siem/elastic/ingest-pipeline.json").read_bytes())
hostile = st.text(st.sampled_from("|=\\\n\r\t \x00\x85\u2028ab=é🖼"), max_size=2000) | st.text(max_size=200)


def cleaned(text: str, keep: str) -> str:
    """What the standard has no way to write becomes a blank."""
    bad = ("Cc", "Zl", "Zp", "Cs")
    return "".join(" " if unicodedata.category(c) in bad and c not in keep else c for c in text)


@settings(max_examples=150, deadline=None)
@given(hostile, hostile)
def test_any_text_is_read_back_from_cef(message: str, title: str) -> None:
    block = golden("block")
    info = block.finding_info.model_copy(update={"title": title})
    line = cef_line(block.model_copy(update={"message": message, "finding_info": info}))
    event = read_cef(line)
    assert event.extension.get("msg", "") == cleaned(message, "\n\r")[:1023]
    assert event.header["name"] == cleaned(title, "")[:512]
    assert event.extension["fileHash"] == block.evidences[0].file.hashes[0].value  # type: ignore[union-attr]
    assert event.extension["cs4"] == block.metadata.correlation_uid


@settings(max_examples=60, deadline=None)
@given(decisions())
def test_any_decision_has_one_cef_line_that_is_read_back(decision: Decision) -> None:
    finding = finding_from_decision(decision)
    event = read_cef(cef_line(finding))
    assert event.extension["externalId"] == str(finding.metadata.uid)
    assert event.extension["request"] == cleaned(decision.admission.uri, "")[:1023]
    assert event.extension["msg"] == cleaned(finding.message, "\n\r")[:1023]
    assert all(len(value) <= MAX_LENGTH.get(key, 20) for key, value in event.extension.items())


@settings(max_examples=60, deadline=None)
@given(decisions())
def test_python_and_elasticsearch_make_the_same_document(decision: Decision) -> None:
    finding = finding_from_decision(decision)
    uid, document = ingest(PIPELINE, json.loads(encode_finding(finding)))
    assert document == json.loads(json.dumps(ecs_document(finding)))
    assert uid == document["event"]["id"]


@settings(max_examples=60, deadline=None)
@given(decisions(), st.sampled_from(Label), st.integers(1, 1000))
def test_any_event_of_any_finding_survives_its_bytes(decision: Decision, label: Label, sequence: int) -> None:
    review = review_of(decision, label)
    for finding in (
        finding_from_decision(decision),
        finding_from_review(decision, review, sequence),
        finding_from_closed_case(decision, review, review.reviewed_at, sequence),
        finding_from_closed_case(decision, None, review.reviewed_at, sequence),
    ):
        assert decode_finding(encode_finding(finding)) == finding
        assert decode_finding(encode_finding(finding)).unmapped.mediasieve == decision
