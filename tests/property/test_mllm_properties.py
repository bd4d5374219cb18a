"""No answer of a model, whatever it is, gets more than the policy allows it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from pipeline.detection.calibration import Calibration, logit
from pipeline.detection.mllm.backends.base import VerifyResult
from pipeline.detection.mllm.chat import ChatAnswer, ChatFailed, ChatRequest, Token
from pipeline.detection.mllm.dialogue import DialogueSettings, DialogueVerifier, dialogue_sha256
from pipeline.detection.mllm.prompt import Prompts
from pipeline.detection.mllm.report import ReportError, parse_report
from pipeline.detection.mllm.verdict import Basis, MllmCalibration, Opinion, opinion_of
from pipeline.detection.policy import Fusion, Policy
from pipeline.streaming.stage import Emit
from schemas.decision import Decision, Outcome, ReasonCode
from schemas.forensics import Hypothesis
from schemas.media import EvidenceRef
from tests.support.cases import anomalous
from tests.support.entries import item as plain_item
from tests.support.mllm import plain_report, report_data, tokens_of
from tests.support.scripted_chat import ScriptedChat
from tests.support.worker_stages import MEMORY, PANEL_PNG, BreakableStore, png, report, shipped_bundle, use_store
from workers.mllm.conclusion import conclude
from workers.mllm.stage import MllmStage

probabilities = st.floats(0.0, 1.0)
policies = st.builds(
    lambda weight, low, high: Policy(version="test", fusion=Fusion(mllm_weight=weight, mllm_clip=(low, high))),
    st.floats(0.0, 4.0),
    st.floats(-10.0, 0.0),
    st.floats(0.0, 10.0),
)
opinions = st.builds(
    Opinion,
    probability=st.none() | probabilities,
    raw=st.none(),
    basis=st.sampled_from(Basis),
    calibrated=st.booleans(),
)
hypotheses = st.sampled_from(Hypothesis)
FAILURES = [c for c in ReasonCode if c.value.startswith(("mllm_", "media_"))]


def check(policy: Policy, p12: float, final: float, outcome: Outcome, hypothesis: Hypothesis | None) -> None:
    """What must hold of every decision of stage 3."""
    t, (low, high) = policy.thresholds, policy.fusion.mllm_clip
    # Beyond the limit of a single score's logit only the clip of the limit itself shows.
    assert low - 1e-3 <= logit(final) - logit(p12) <= high + 1e-3
    if policy.fusion.mllm_weight == 0.0:
        assert final == p12
    if outcome is Outcome.BLOCK:
        assert final >= t.t3_block
        assert p12 >= t.p12_block
        assert hypothesis in {Hypothesis.GAN, Hypothesis.LORA_TUNED, Hypothesis.BASE_DIFFUSION}
    if outcome is Outcome.PASS:
        assert final <= t.t3_clear
        assert hypothesis is Hypothesis.AUTHENTIC


@given(policies, probabilities, opinions, hypotheses)
def test_no_opinion_whatever_leaves_the_bound(
    policy: Policy, p12: float, opinion: Opinion, hypothesis: Hypothesis
) -> None:
    result = VerifyResult(report=report(hypothesis), opinion=opinion, model="m", duration_s=0.0)
    conclusion = conclude(policy, p12, result)
    check(policy, p12, conclusion.final, conclusion.outcome, hypothesis)
    if not opinion.calibrated:
        assert conclusion.final == p12
    assert 1 <= len(conclusion.reasons) <= 16


@given(policies, probabilities, st.sampled_from(FAILURES), st.text(max_size=3000))
def test_a_missing_report_always_escalates(policy: Policy, p12: float, code: ReasonCode, detail: str) -> None:
    conclusion = conclude(policy, p12, VerifyResult(failure=code, detail=detail, model="m", duration_s=0.0))
    assert (conclusion.outcome, conclusion.final) == (Outcome.ESCALATE, p12)
    assert conclusion.reasons[0].code is code


# The whole stage, with a model that says anything at all


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
reports = st.builds(
    lambda hypothesis, confidence, changes: plain_report(hypothesis, confidence) | changes,
    hypotheses.map(str),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]) | st.floats(-1.0, 2.0),
    st.dictionaries(st.sampled_from([*report_data(), "extra"]), json_values, max_size=1) | st.just({}),
)
texts = (
    st.text(max_size=60)
    | json_values.map(json.dumps)
    | reports.map(json.dumps)
    | st.tuples(reports.map(json.dumps), st.integers(0, 400)).map(lambda cut: cut[0][: cut[1]])
    | reports.map(lambda data: f"```json\n{json.dumps(data)}\n```")
)
token_lists = st.lists(
    st.builds(Token, st.text(max_size=4), st.floats(), st.dictionaries(st.text(max_size=4), st.floats(), max_size=3)),
    max_size=4,
).map(tuple)
verdict_tokens = st.dictionaries(
    st.sampled_from(["gan", "lor", "bas", "aut", "und", "g", 'authentic"', "?"]), st.floats(1e-9, 1.0), max_size=4
)


@st.composite
def answers(draw: st.DrawFn) -> ChatAnswer | ChatFailed:
    if draw(st.integers(0, 9)) == 0:
        return ChatFailed(draw(st.sampled_from(FAILURES)), draw(st.text(max_size=40)), draw(st.text(max_size=40)))
    text = draw(texts)
    tokens = draw(token_lists)
    if draw(st.booleans()) and '"hypothesis": "' in text:
        tokens = tokens_of(text, draw(verdict_tokens))
        if draw(st.booleans()):
            wild = draw(st.floats())
            tokens = tuple(replace(t, logprob=wild, alternatives=dict.fromkeys(t.alternatives, wild)) for t in tokens)
    return ChatAnswer(text=text, finish=draw(st.sampled_from(["stop", "stop", "length"])), tokens=tokens)


def says(turns: list[ChatAnswer | ChatFailed]) -> ScriptedChat:
    left = list(turns)

    def say(_: ChatRequest) -> ChatAnswer:
        answer = left.pop(0)
        if isinstance(answer, ChatFailed):
            raise answer
        return answer

    return ScriptedChat(say)


LOUD = Policy(version="test", fusion=Fusion(mllm_weight=4.0))
PROMPTS = Prompts.packaged()


def decide(turns: list[ChatAnswer | ChatFailed], score: float, basis: Basis) -> tuple[Decision, Any]:
    chat = says(turns)
    asked = dialogue_sha256(PROMPTS, DialogueSettings(), chat.capabilities)
    fitted = MllmCalibration(model="scripted@1", dialogue=asked, basis=basis, map=Calibration())
    dialogue = DialogueVerifier(chat, PROMPTS, None, fitted, backend="scripted")
    stage = MllmStage(replace(shipped_bundle(), policy=LOUD), dialogue, MEMORY)
    store = BreakableStore()
    use_store(stage, store)
    store.put("acme", hashlib.sha256(png()).hexdigest(), png())
    uri, sha256 = store.put_evidence("acme", PANEL_PNG, ".png")
    panel = EvidenceRef(kind="spectral_panel", uri=uri, sha256=sha256)
    (outcome,) = stage.process([plain_item(tenant="acme", value=anomalous(score, score, data=png(), panel=panel))])
    assert isinstance(outcome, Emit)
    decision = outcome.outputs[0].record
    assert isinstance(decision, Decision)
    last = decision.evidence[-2]  # the very last is the manifest
    return decision, json.loads(store.get_evidence(last.uri, last.sha256))


@settings(max_examples=150, deadline=None)
@given(st.lists(answers(), min_size=3, max_size=3), st.floats(0.02, 0.98), st.sampled_from(Basis))
def test_no_fuzzed_answer_blocks_or_passes_outside_the_bound(
    turns: list[ChatAnswer | ChatFailed], score: float, basis: Basis
) -> None:
    decision, trace = decide(turns, score, basis)
    assert decision.final_score is not None
    hypothesis = Hypothesis(trace["report"]["hypothesis"]) if trace["report"] else None
    check(LOUD, LOUD.fuse12(score, score), decision.final_score, decision.outcome, hypothesis)
    if hypothesis is None:
        assert decision.outcome is Outcome.ESCALATE
        assert decision.reasons[0].code.value == trace["failure"]
    assert 3 <= len(decision.evidence) <= 6
    assert len(trace["turns"]) <= 3


@given(texts)
def test_any_text_is_a_report_or_a_report_error(text: str) -> None:
    try:
        read = parse_report(text)
    except ReportError as error:
        event(f"refused at {error.detail.partition(':')[0][:20]}")
    else:
        assert 0.0 <= read.confidence <= 1.0


@given(hypotheses, token_lists | st.just(()), verdict_tokens)
def test_an_opinion_is_a_probability_or_none_whatever_the_tokens(
    hypothesis: Hypothesis, noise: tuple[Token, ...], shares: dict[str, float]
) -> None:
    made = report(hypothesis)
    text = json.dumps(made.model_dump(mode="json"))
    for tokens in (noise, tokens_of(text, shares), (*noise, *tokens_of(text, shares))):
        opinion = opinion_of(made, tokens)
        assert (opinion.probability is None) == (hypothesis is Hypothesis.UNDETERMINED)
        assert opinion.probability is None or 0.0 <= opinion.probability <= 1.0
        assert all(0.0 <= share <= 1.0 + 1e-9 for share in opinion.shares.values())
