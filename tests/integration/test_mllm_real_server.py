"""The openai back end and a server that we did not write: what it lacks is found out and made up for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.detection.mllm.backends.base import VerifyRequest
from pipeline.detection.mllm.backends.openai import OpenAIChat, OpenAISettings
from pipeline.detection.mllm.chat import Capabilities, ChatFailed, ChatRequest, Message, ServerUnavailable
from pipeline.detection.mllm.dialogue import DialogueSettings, DialogueVerifier
from pipeline.detection.mllm.prompt import PREFILL, Prompts
from pipeline.detection.mllm.report import answer_schema
from pipeline.detection.mllm.verdict import Basis
from schemas.decision import ReasonCode
from schemas.forensics import Hypothesis
from tests.support.mllm import encoded, picture, verify_request
from tests.support.mllm_ports import held_port
from tests.support.model_server import transformers_serve

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        any(importlib.util.find_spec(m) is None for m in ("torch", "transformers", "fastapi", "uvicorn", "openai")),
        reason="needs mediasieve[torch,modelserver]",
    ),
    # torch and its friends warn of their own future
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.timeout(600),
]
NOTHING = Capabilities(guided_json=False, logprobs=False, prefill=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_mllm import REPORTS, save_tiny_mllm

    return save_tiny_mllm(tmp_path_factory.mktemp("served"), REPORTS)


@pytest.fixture(scope="module")
def url(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with held_port() as port, transformers_serve(weights, log, port) as url:
        yield url


def chat_with(url: str, model: str) -> OpenAIChat:
    return OpenAIChat(OpenAISettings(base_url=url, model=model, timeout_s=120))


@pytest.fixture
def chat(url: str, weights: Path) -> Iterator[OpenAIChat]:
    chat = chat_with(url, str(weights))
    yield chat
    chat.close()


def item(number: int) -> VerifyRequest:
    return verify_request(encoded(picture(96 + number, 64, seed=number)))


def verifier(chat: OpenAIChat) -> DialogueVerifier:
    settings = DialogueSettings(reason_max_tokens=16, report_max_tokens=400)
    return DialogueVerifier(chat, Prompts.packaged(), settings, backend="openai")


def test_what_the_server_lacks_is_found_at_open_and_logged(chat: OpenAIChat, weights: Path) -> None:
    with capture_logs() as logs:
        chat.open()
    # It takes response_format and logprobs, ignores both, and refuses what it does not know.
    assert chat.capabilities == NOTHING
    (found,) = [entry for entry in logs if entry["event"] == "mllm_server"]
    assert (found["guided_json"], found["logprobs"], found["prefill"]) == (False, False, False)
    assert found["served"] == (str(weights),)


def test_what_it_lacks_is_asked_for_in_words_and_the_report_counts_as_stated(chat: OpenAIChat) -> None:
    chat.open()
    result = verifier(chat).verify(verify_request())
    assert result.failure is None, result.detail
    assert result.report is not None
    assert result.report.hypothesis is Hypothesis.AUTHENTIC
    assert result.opinion is not None
    assert result.opinion.basis is Basis.STATED
    assert result.opinion.raw == pytest.approx(1 - 0.75)
    assert result.trace is not None
    assert result.trace.capabilities == NOTHING
    reason, report = result.trace.turns[:2]
    assert reason.prompt_tokens < report.prompt_tokens
    assert PREFILL not in reason.raw_text


def test_pictures_reach_the_server(chat: OpenAIChat) -> None:
    chat.open()
    shown = encoded(picture())
    turns = [Message("user", "Look.", (shown,) * count) for count in range(3)]
    sizes = [chat.chat(ChatRequest(messages=(turn,), max_tokens=4)).prompt_tokens for turn in turns]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] > 0


def test_threads_are_answered_by_the_server(chat: OpenAIChat) -> None:
    chat.open()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(verifier(chat).verify, map(item, range(4))))
    assert [result.failure for result in results] == [None] * 4


def test_a_cut_answer_says_so(chat: OpenAIChat) -> None:
    chat.open()
    request: dict[str, Any] = {"messages": (Message("user", "Report."),), "schema": answer_schema()}
    assert chat.chat(ChatRequest(max_tokens=5, **request)).finish == "length"


def test_another_models_name_is_refused_and_named(url: str) -> None:
    chat = chat_with(url, "some/other-model")
    chat.open()
    with pytest.raises(ChatFailed, match="pinned to") as caught:
        chat.chat(ChatRequest(messages=(Message("user", "Hello"),), max_tokens=4))
    assert caught.value.code is ReasonCode.MLLM_UNAVAILABLE
    chat.close()


def test_the_server_goes_away_and_the_item_is_not_to_blame(weights: Path, tmp_path: Path) -> None:
    with held_port() as port:
        with transformers_serve(weights, tmp_path / "serve.log", port) as url:
            chat = chat_with(url, str(weights))
            chat.open()
        with pytest.raises(ServerUnavailable):
            verifier(chat).verify(verify_request())
        chat.close()
