"""What a request and a result refuse, and what is said where no model is configured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.detection.mllm.backends.base import VerifyResult
from pipeline.detection.mllm.backends.unconfigured import UnconfiguredVerifier
from pipeline.detection.mllm.chat import ChatRequest, Message, in_words
from schemas.decision import ReasonCode
from schemas.media import Feature, StageScore
from schemas.types import StageName
from tests.support.mllm import verify_request
from tests.support.worker_stages import report

REQUEST = verify_request()


@pytest.mark.parametrize(
    "missing",
    [{"panel_png": b""}, {"panel_png": b"\xff\xd8\xff"}, {"original": b""}, {"width": 0}, {"height": 0}],
)
def test_a_request_without_both_pictures_is_refused(missing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="VerifyRequest"):
        replace(REQUEST, **missing)


def test_a_result_is_a_report_or_a_failure() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        VerifyResult(model="m", duration_s=0.0)


def test_a_report_comes_with_its_opinion() -> None:
    with pytest.raises(ValueError, match="opinion"):
        VerifyResult(report=report(), model="m", duration_s=0.0)


def test_a_detail_fits_a_reason() -> None:
    result = VerifyResult(failure=ReasonCode.MLLM_REFUSED, detail="x" * 5000, model="m", duration_s=0.0)
    assert len(result.detail) == 1024


def test_unconfigured_gives_the_evidence_and_no_verdict() -> None:
    score = StageScore(stage=StageName.SPECTRAL, score=0.91, p_value=0.004, bundle_version="1", model="m")
    verifier = UnconfiguredVerifier()
    verifier.open()
    result = verifier.verify(verify_request(scores=(score,)))
    verifier.close()
    assert result.failure is ReasonCode.MLLM_UNCONFIGURED
    assert (result.report, result.trace) == (None, None)
    for fact in ("lossless/128_383", "spectral 0.910 (p=0.004)", "slope=-2 (percentile 99.0)"):
        assert fact in result.detail


def test_unconfigured_puts_the_most_unusual_feature_first() -> None:
    names_places = (("middle", 52.0), ("unknown", None), ("low", 1.0), ("high", 90.0))
    features = tuple(Feature(name=name, value=0.0, percentile=place) for name, place in names_places)
    detail = UnconfiguredVerifier().verify(replace(REQUEST, features=features)).detail
    order = [detail.index(f"{name}=") for name in ("low", "high", "middle", "unknown")]
    assert order == sorted(order)


QUESTION = ChatRequest(
    messages=(Message("user", "first", (b"png",)), Message("assistant", "said"), Message("user", "last", (b"more",))),
    max_tokens=5,
    prefill="Let's",
    schema={"type": "object"},
)


def test_what_a_back_end_lacks_is_asked_for_in_the_last_message() -> None:
    worded = in_words(QUESTION, schema=True, prefill=True)
    assert worded.messages[:-1] == QUESTION.messages[:-1]
    last = worded.messages[-1]
    assert last.images == (b"more",)
    assert last.text.startswith("last\n\n")
    assert '{"type":"object"}' in last.text
    assert 'words "Let\'s"' in last.text
    assert (worded.schema, worded.prefill, worded.max_tokens) == (None, "", 5)


def test_what_it_has_stays_as_it_is() -> None:
    assert in_words(QUESTION, schema=False, prefill=False) is QUESTION
    schema_only = in_words(QUESTION, schema=True, prefill=False)
    assert (schema_only.prefill, schema_only.schema) == ("Let's", None)
    assert "Let's" not in schema_only.messages[-1].text
