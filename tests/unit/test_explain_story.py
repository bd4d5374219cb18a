"""What `mediasieve explain` collects of a decision, whatever is left of its evidence."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import obstore
import orjson
import pytest

from pipeline.media.content_store import ContentStore
from pipeline.media.errors import StoreUnavailable
from schemas.decision import Decision, Outcome, ReasonCode
from schemas.media import EvidenceRef
from schemas.ocsf import encode_finding, finding_from_closed_case, finding_from_review
from schemas.types import StageName
from tests.support.explaining import (
    BUNDLE,
    FEATURES,
    NO_PROVER,
    POLICY,
    TENANT,
    Case,
    explained,
    finding,
    found,
    review,
)
from workers.explain.collect import explain
from workers.explain.evidence import EvidenceReader
from workers.explain.pictures import Picture
from workers.explain.story import ErasureStory, Held, Side, Story
from workers.explain.words import REASON_WORDS

GOLDEN = Path(__file__).parents[1] / "support" / "explain_story.json"
EVERY = ("released", "low_risk", "blocked", "escalated", "unconfigured", "undecodable")
every_kind = pytest.mark.parametrize("kind", EVERY)


def held(story: Story) -> dict[str, Held]:
    return {piece.kind: piece.held for piece in story.evidence}


def numbered(story: Story) -> str:
    """As JSON, each digest by the order in which it occurs first: what they are of changes with the records' schema."""
    text = orjson.dumps(story.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
    order = list(dict.fromkeys(re.findall(r"\b[0-9a-f]{64}\b", text)))
    return re.sub(r"\b[0-9a-f]{64}\b", lambda match: f"sha256 {order.index(match[0])}", text)


def test_the_story_of_a_block_is_the_golden_one() -> None:
    """To accept a change, write `numbered(story)` over the file."""
    case = Case()
    assert numbered(explained(case, case.blocked()).story) == GOLDEN.read_text("utf-8")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("released", "Passed without a closer look: the classifier's score 0.120 lies below 0.3, so no later stage"),
        ("low_risk", "Passed as low risk by the second stage: the spectral stage found too little to go on."),
        ("blocked", "Blocked as synthetic: the final score 0.910 is at least 0.8."),
        ("escalated", "Held for a person to look at: the evidence is not enough for a block or for a pass."),
        ("unconfigured", "Held for a person to look at: no model is configured for the last stage."),
        ("undecodable", "Held for a person to look at: the file is cut short."),
    ],
)
def test_the_outcome_is_one_plain_sentence(kind: str, sentence: str) -> None:
    case = Case()
    assert explained(case, getattr(case, kind)()).story.headline.startswith(sentence)


def test_every_reason_has_words() -> None:
    assert set(REASON_WORDS) == set(ReasonCode)


@every_kind
def test_what_the_store_keeps_is_read_and_verified(kind: str) -> None:
    case = Case()
    story = explained(case, getattr(case, kind)()).story
    assert set(held(story).values()) == ({Held.NOT_KEPT} if kind == "released" else {Held.VERIFIED})
    assert story.holds


def test_a_released_pass_says_that_nothing_was_kept() -> None:
    case = Case()
    explanation = explained(case, case.released())
    assert explanation.story.evidence[0].said.startswith("No object was kept for a released pass")
    assert explanation.story.mllm.absent == "No model was asked: the classifier stage decided."
    pictures = explanation.pictures(lambda _: (_ for _ in ()).throw(AssertionError("there is nothing to decode")))
    assert "released pass" in pictures.absent_original
    assert pictures.absent_panel == "The classifier stage decided before a panel was made."


def test_pictures_are_made_of_the_bytes_that_were_verified() -> None:
    case = Case(original=b"the original", panel=b"the panel")
    seen: list[bytes] = []

    def make(data: bytes) -> tuple[Picture | None, str]:
        seen.append(data)
        return None, f"{len(data)}"

    pictures = explained(case, case.blocked()).pictures(make)
    assert seen == [b"the original", b"the panel"]
    assert (pictures.absent_original, pictures.absent_panel) == ("12", "9")


def test_missing_evidence_is_said_and_the_rest_is_told() -> None:
    case = Case()
    decision = case.blocked()
    panel = next(ref for ref in decision.evidence if ref.kind == "spectral_panel")
    case.store.delete(case.store.key_of(panel.uri))
    story = explained(case, decision).story
    assert held(story)["spectral_panel"] is Held.MISSING
    assert story.holds
    assert len(story.mllm.answers) == 2


def test_changed_evidence_does_not_hold() -> None:
    case = Case(store=ContentStore("memory://"))
    decision = case.blocked()
    panel = next(ref for ref in decision.evidence if ref.kind == "spectral_panel")
    obstore.put(case.store.objects.raw, case.store.key_of(panel.uri), b"another panel")
    explanation = explained(case, decision)
    assert held(explanation.story)["spectral_panel"] is Held.DIGEST_DIFFERS
    assert not explanation.story.holds
    assert explanation.pictures(lambda _: (None, "made")).absent_panel.startswith("What lies there is not")


def erased(sha256: str) -> ErasureStory:
    at = datetime(2032, 2, 1, tzinfo=UTC)
    return ErasureStory(cause="retention", actor="sweep", detail="block 6 y", erased_at=at, sha256s=(sha256,))


@pytest.mark.parametrize("noted", [True, False])
def test_an_erased_original_says_when_and_why(noted: bool) -> None:
    case = Case()
    decision = case.blocked()
    assert decision.facts is not None
    sha256 = decision.facts.sha256
    assert case.store.keys is not None
    case.store.keys.destroy(TENANT, sha256)
    records = replace(found(decision), erasures=(erased(sha256),) if noted else ())
    story = explain(records, EvidenceReader(case.store), NO_PROVER, None).story
    assert held(story)["original"] is Held.ERASED
    known, unknown = (
        "Erased on 2032-02-01 00:00:00 UTC by retention (sweep): block 6 y.",
        "Erased: its key was destroyed.",
    )
    assert story.evidence[0].said.startswith(known if noted else unknown)
    assert story.holds


class Down:
    def get(self, tenant: str, sha256: str) -> bytes:
        raise StoreUnavailable("no route")

    def get_evidence(self, uri: str, sha256: str) -> bytes:
        raise ValueError("of another store")


@pytest.mark.parametrize("reader", [EvidenceReader(None, "no disk"), EvidenceReader(Down())])
def test_without_a_store_the_decision_is_told_all_the_same(reader: EvidenceReader) -> None:
    story = explain(found(Case().blocked()), reader, NO_PROVER, None).story
    assert set(held(story).values()) == {Held.UNREADABLE}
    assert story.headline.startswith("Blocked")
    assert story.mllm.absent.startswith("The trace of the dialogue cannot be shown: Not read")
    assert story.holds


def test_the_dialogue_is_told_from_its_trace() -> None:
    case = Case(answer="what I saw")
    mllm = explained(case, case.blocked()).story.mllm
    assert (mllm.absent, mllm.model, mllm.dialogue_sha256, mllm.passes) == ("", "qwen-vl@rev1", "ab" * 32, 2)
    assert [(a.name, a.question) for a in mllm.answers] == [
        ("reason", "What do both pictures show?"),
        ("report", "Now the report as JSON."),
    ]
    assert mllm.answers[0].text == "what I saw"
    assert (mllm.probability, mllm.basis, mllm.calibrated) == (0.97, "tokens", False)
    assert mllm.shares == {"gan": 0.9, "undetermined": 0.1}


def test_an_answer_that_is_gone_is_said_beside_its_question() -> None:
    case = Case()
    decision = case.blocked()
    answer = next(ref for ref in decision.evidence if ref.kind == "mllm_reason")
    case.store.delete(case.store.key_of(answer.uri))
    told = explained(case, decision).story.mllm.answers[0]
    assert told.text is None
    assert told.said.startswith("It is not in the store")
    assert told.question


@pytest.mark.parametrize("data", [b"{}", b"no json", b'{"model": 3}', b"[]"])
def test_a_trace_of_an_unknown_form_is_said(data: bytes) -> None:
    case = Case()
    decision = case.unconfigured()
    trace = case.keep("mllm_trace", data, ".json")
    story = explained(case, decision.model_copy(update={"evidence": (*decision.evidence, trace)})).story
    assert story.mllm.absent.startswith("The trace was read, but it has a form that this release does not know")


def test_without_a_model_the_reason_is_said() -> None:
    case = Case()
    absent = explained(case, case.unconfigured()).story.mllm.absent
    assert absent == "No dialogue was kept: no model is configured for the last stage."


def test_features_come_from_the_manifest() -> None:
    case = Case()
    spectrum = explained(case, case.blocked()).story.spectrum
    assert (spectrum.stratum, spectrum.features, spectrum.absent) == ("jpeg_85_94/384_767", FEATURES, "")


@pytest.mark.parametrize("data", [None, b"{}", b"\xff"])
def test_features_without_a_readable_manifest_are_said_to_be_absent(data: bytes | None) -> None:
    case = Case()
    decision = case.blocked()
    kept = tuple(ref for ref in decision.evidence if ref.kind != "manifest")
    named = () if data is None else (case.keep("manifest", data, ".json"),)
    spectrum = explained(case, decision.model_copy(update={"evidence": (*kept, *named)})).story.spectrum
    assert spectrum.features == ()
    assert spectrum.absent.startswith("The features cannot be shown: the ")


def test_a_manifest_that_contradicts_its_decision_is_noted() -> None:
    case = Case()
    decision = case.blocked().model_copy(update={"final_score": 0.99})
    assert explained(case, decision).story.notes == (
        "the manifest says something else than the decision in the field final_score",
    )


def test_reasons_say_what_kept_it_from_a_block_and_from_a_pass() -> None:
    case = Case()
    verdict = explained(case, case.escalated()).story.verdict
    assert verdict is not None
    assert [r.side for r in verdict.reasons] == [Side.OUTCOME, Side.AGAINST_BLOCK, Side.AGAINST_PASS, Side.ORDER]


def later_events(decision: Decision) -> tuple[bytes, bytes]:
    verdict = review(decision)
    closed = finding_from_closed_case(decision, verdict, datetime(2026, 2, 2, tzinfo=UTC), 2)
    return encode_finding(closed), encode_finding(finding_from_review(decision, verdict, 1))


def test_reviews_and_later_events_follow_the_verdict_in_order() -> None:
    case = Case()
    decision = case.escalated()
    story = explain(found(decision, *later_events(decision)), EvidenceReader(case.store), NO_PROVER, None).story
    assert [(e.sequence, e.activity) for e in story.events] == [(0, "Create"), (1, "Update"), (2, "Close")]
    assert story.outcome is Outcome.ESCALATE
    assert story.later == "Since then, on 2026-02-02 00:00:00 UTC: Case closed: generated. Its effect: blocked."
    assert [(r.reviewer, r.rationale) for r in story.reviews] == [("ana", "the hands are wrong")]


def test_of_two_verdicts_under_one_uid_the_strictest_counts() -> None:
    case = Case()
    blocked, escalated = case.blocked(), case.escalated()
    records = found(escalated, finding(blocked))
    assert explain(records, EvidenceReader(case.store), NO_PROVER, None).story.outcome is Outcome.BLOCK


def test_an_original_that_was_never_obtained_has_no_digest() -> None:
    case = Case()
    decision = case.released().model_copy(
        update={"outcome": Outcome.ESCALATE, "risk": None, "facts": None, "scores": ()}
    )
    piece = explained(case, decision).story.evidence[0]
    assert (piece.sha256, piece.held) == (None, Held.NOT_KEPT)
    assert piece.said.startswith("The bytes were never obtained")


def test_evidence_of_another_store_is_not_read() -> None:
    case = Case()
    decision = case.unconfigured()
    foreign = EvidenceRef(kind="other", uri="s3://elsewhere/evidence/x", sha256="0" * 64)
    story = explained(case, decision.model_copy(update={"evidence": (*decision.evidence, foreign)})).story
    assert held(story)["other"] is Held.UNREADABLE


def test_versions_and_times_are_told() -> None:
    case = Case()
    verdict = explained(case, case.blocked()).story.verdict
    assert verdict is not None
    assert (verdict.admission.bundle_version, verdict.admission.policy_version) == (BUNDLE, POLICY)
    assert verdict.product_version == "1.2.3"
    assert [(s.stage, s.worked_ms) for s in verdict.stages] == [(stage, 2310.5) for stage in StageName]
