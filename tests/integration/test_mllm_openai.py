"""The OpenAI-compatible chat model against a scripted HTTP server on the loopback interface."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import subprocess
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import ValidationError

from pipeline.detection.mllm.backends import openai_probe
from pipeline.detection.mllm.backends.openai import OpenAIChat, OpenAISettings
from pipeline.detection.mllm.chat import (
    ChatRequest,
    ServerUnavailable,
    Token,
)
from schemas.decision import ReasonCode
from tests.support.openai_chats import (
    API_KEY,
    GUIDED,
    PNGS,
    PREFILLED,
    QUESTION,
    SCHEMA,
    absent_server,
    chatting,
    failure,
)
from tests.support.scripted_server import Body, Reply, ScriptedServer, completion, serving


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving(ScriptedServer()) as running:
        yield running


# What is sent, what comes back


def test_the_question_keeps_its_contract(server: ScriptedServer) -> None:
    with chatting(server) as chat:
        answer = chat.chat(QUESTION)
    assert (answer.text, answer.finish, answer.prompt_tokens, answer.completion_tokens) == ("fine", "stop", 900, 100)
    (body,) = server.asked
    assert {name: body[name] for name in ("model", "temperature", "seed", "max_tokens")} == {
        "model": "test-model",
        "temperature": 0.0,
        "seed": 0,
        "max_tokens": 500,
    }
    assert not {"response_format", "logprobs", "continue_final_message"} & body.keys()
    text, *images = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "what is it?"}
    prefix = "data:image/png;base64,"
    assert all(image["image_url"]["url"].startswith(prefix) for image in images)
    assert tuple(base64.b64decode(image["image_url"]["url"].removeprefix(prefix)) for image in images) == PNGS
    path, headers = server.seen[-1]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {API_KEY}"
    assert headers["accept-encoding"] == "identity"


def test_a_guided_question_asks_for_the_schema_and_the_log_probabilities(server: ScriptedServer) -> None:
    token = Token('{"a":"b"}', -0.5, {'{"a":"b"}': -0.5, "{": -1.25})
    server.answer = lambda _: Reply(completion('{"a":"b"}', tokens=[token]))
    with chatting(server) as chat:
        answer = chat.chat(GUIDED)
    (body,) = server.asked
    assert body["response_format"]["json_schema"] == {"name": "forensic_report", "strict": True, "schema": SCHEMA}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 10)
    assert answer.tokens == (token,)


def test_a_prefill_is_the_assistants_open_message(server: ScriptedServer) -> None:
    server.answer = lambda _: Reply(completion("Let's see: peaks"))
    with chatting(server) as chat:
        answer = chat.chat(PREFILLED)
    (body,) = server.asked
    assert body["messages"][-1] == {"role": "assistant", "content": "Let's see"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert answer.text == ": peaks", "a server that says the prefill again is not believed twice"


@pytest.mark.parametrize("logprobs", [None, [], {"content": None}, {"content": [{"token": "a"}]}, {"tokens": ["a"]}])
def test_log_probabilities_that_are_none_leave_the_answer_without(server: ScriptedServer, logprobs: Any) -> None:
    choice = {"message": {"content": "{}"}, "finish_reason": "stop", "logprobs": logprobs}
    server.answer = lambda _: Reply(json.dumps({"choices": [choice]}).encode())
    with chatting(server) as chat:
        answer = chat.chat(GUIDED)
    assert (answer.text, answer.tokens, answer.prompt_tokens) == ("{}", (), 0)


def test_being_cut_off_is_a_finish_and_no_failure(server: ScriptedServer) -> None:
    server.answer = lambda _: Reply(completion("and so on and so on", "length"))
    with chatting(server) as chat:
        assert chat.chat(QUESTION).finish == "length"


# Faults of one question


FAULTS: dict[str, tuple[Reply, ReasonCode, str]] = {
    "refusal": (Reply(completion(None, refusal="I will not")), ReasonCode.MLLM_REFUSED, "I will not"),
    "refusal beside text": (Reply(completion("{}", refusal="I will not")), ReasonCode.MLLM_REFUSED, "I will not"),
    "filtered": (Reply(completion("{}", "content_filter")), ReasonCode.MLLM_REFUSED, "content_filter"),
    "parts": (Reply(completion([{"type": "text"}])), ReasonCode.MLLM_INVALID_REPORT, "content"),
    "no choice": (Reply(b'{"choices": []}'), ReasonCode.MLLM_INVALID_REPORT, "choices"),
    "a web page": (Reply(b"<html>welcome</html>"), ReasonCode.MLLM_INVALID_REPORT, "response:"),
    "cut body": (Reply(completion("fine" * 99), how="cut"), ReasonCode.MLLM_UNAVAILABLE, "connection broke"),
    "dropped": (Reply(how="drop"), ReasonCode.MLLM_UNAVAILABLE, "connection broke"),
    "5 MB": (Reply(b" " * 5_000_000), ReasonCode.MLLM_INVALID_REPORT, "response: more than"),
    "gateway timeout": (Reply(status=504), ReasonCode.MLLM_TIMEOUT, "HTTP 504"),
    "request timeout": (Reply(status=408), ReasonCode.MLLM_TIMEOUT, "HTTP 408"),
    **{
        f"HTTP {status}": (Reply(b'{"error": "engine fault"}', status), ReasonCode.MLLM_UNAVAILABLE, f"HTTP {status}")
        for status in (400, 401, 404, 413, 422, 500, 307)
    },
}


@pytest.mark.parametrize("question", [QUESTION, GUIDED], ids=["free", "guided"])
@pytest.mark.parametrize(("reply", "code", "detail"), FAULTS.values(), ids=FAULTS)
def test_a_bad_answer_is_the_questions_failure(
    server: ScriptedServer, reply: Reply, code: ReasonCode, detail: str, question: ChatRequest
) -> None:
    server.answer = lambda _: reply
    error = failure(server, question)
    assert error.code is code
    assert detail in error.detail


def test_an_error_status_says_what_the_server_said(server: ScriptedServer) -> None:
    server.answer = lambda _: Reply(b'{"error": "at most 1 image"}', 400)
    assert "at most 1 image" in failure(server).detail


def test_a_wrong_model_name_is_named(server: ScriptedServer) -> None:
    server.trial = server.answer = lambda _: Reply(b'{"error": "no such model"}', 404)
    with structlog.testing.capture_logs() as logged:
        error = failure(server, model="tset-model")
    assert error.code is ReasonCode.MLLM_UNAVAILABLE
    assert "is openai.model 'tset-model' served at" in error.detail
    assert len(server.trials) == 1, "no other trial would tell more"
    (entry,) = [entry for entry in logged if entry["event"] == "mllm_server_not_probed"]
    assert "served: test-model" in entry["cause"]


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_slow_answer_is_a_timeout(server: ScriptedServer, how: Any) -> None:
    server.answer = lambda _: Reply(completion("fine" * 99), how=how)
    error = failure(server, timeout_s=0.3)
    assert error.code is ReasonCode.MLLM_TIMEOUT
    assert "timeout_s=0.3" in error.detail


def test_a_server_that_hangs_at_the_trials_does_not_hold_open_up(server: ScriptedServer) -> None:
    server.trial = lambda _: Reply(b"x", how="hang")
    with chatting(server, timeout_s=2.0) as chat:
        assert chat.capabilities == openai_probe.ASSUMED
        assert chat.chat(QUESTION).text == "fine"


# Faults of the server


@pytest.mark.parametrize("status", [429, 502, 503])
def test_an_absent_server_is_no_fault_of_the_question(server: ScriptedServer, status: int) -> None:
    server.answer = lambda _: Reply(status=status)
    with chatting(server) as chat, pytest.raises(ServerUnavailable, match=f"HTTP {status}") as caught:
        chat.chat(QUESTION)
    assert caught.value.retry_after_s == 0.0


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7.0), ("0", 0.0), ("99999", 300.0), ("soon", 0.0), ("-1", 0.0), ("٣", 0.0)]
)
def test_retry_after_is_honoured_in_bounds(server: ScriptedServer, header: str, expected: float) -> None:
    encoded_header = header.encode().decode("latin-1")
    server.answer = lambda _: Reply(status=429, headers={"retry-after": encoded_header})
    with chatting(server) as chat, pytest.raises(ServerUnavailable) as caught:
        chat.chat(QUESTION)
    assert caught.value.retry_after_s == expected


def test_a_refused_connection_is_no_fault_of_the_question() -> None:
    with (
        absent_server() as (url, _),
        chatting(ScriptedServer(url=url)) as chat,
        pytest.raises(ServerUnavailable, match="ConnectError"),
    ):
        chat.chat(QUESTION)


def test_an_unknown_host_is_no_fault_of_the_question() -> None:
    with (
        chatting(ScriptedServer(url="http://mllm.invalid/v1")) as chat,
        pytest.raises(ServerUnavailable, match=r"mllm\.invalid"),
    ):
        chat.chat(QUESTION)


def test_plain_http_behind_https_is_a_tls_error_and_no_fault_of_the_question(server: ScriptedServer) -> None:
    with (
        chatting(ScriptedServer(url=server.url.replace("http:", "https:"))) as chat,
        pytest.raises(ServerUnavailable, match=r"(?i)ssl"),
    ):
        chat.chat(QUESTION)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_a_certificate_that_nobody_signed_is_shunned_before_anything_is_sent(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", *made, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with (
        serving(ScriptedServer(), tls=context) as server,
        chatting(server) as chat,
        pytest.raises(ServerUnavailable, match=r"(?i)certificate verify failed"),
    ):
        chat.chat(QUESTION)
    assert server.seen == []


# Sharing, secrets, settings


def test_eight_threads_ask_at_once(server: ScriptedServer) -> None:
    # The barrier opens only when all eight questions are at the server together.
    together = threading.Barrier(8, timeout=30)

    def answer(_: Body) -> Reply:
        together.wait()
        return Reply(completion("fine"))

    server.answer = answer
    with chatting(server, api_key=None) as chat, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(chat.chat, [QUESTION] * 8))
    assert [a.text for a in answers] == ["fine"] * 8
    assert "authorization" not in server.seen[-1][1]


def test_the_environments_proxy_is_ignored(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with chatting(server) as chat:
        assert chat.chat(QUESTION).text == "fine"


def test_a_redirect_is_not_followed(server: ScriptedServer) -> None:
    server.answer = lambda _: Reply(status=307, headers={"location": "/v1/elsewhere"})
    assert "HTTP 307" in failure(server).detail
    assert {path for path, _ in server.seen} == {"/v1/models", "/v1/chat/completions"}


def test_the_key_is_not_in_a_detail_although_the_server_quotes_it(server: ScriptedServer) -> None:
    server.answer = lambda _: Reply(f"wrong key {API_KEY}".encode(), 401)
    error = failure(server)
    assert "wrong key ***" in error.detail
    assert API_KEY not in repr(error)


def test_the_key_is_in_no_repr_no_traceback_and_no_log() -> None:
    settings = OpenAISettings(base_url="http://mllm.invalid/v1", model="m", api_key=API_KEY)
    with structlog.testing.capture_logs() as logged:
        chat = OpenAIChat(settings)
        chat.open()
        with pytest.raises(ServerUnavailable) as caught:
            chat.chat(QUESTION)
        chat.close()
    shown = repr(settings) + settings.model_dump_json() + repr(chat) + repr(caught.value) + repr(logged)
    assert API_KEY not in shown + "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("key", [f"{API_KEY}\n", "", f"a {API_KEY}", f"{API_KEY}é"])
def test_a_key_that_fits_no_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValidationError, match="api_key") as caught:
        OpenAISettings(base_url="http://127.0.0.1/v1", model="m", api_key=key)
    assert API_KEY not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://a/v1", "http://user:pw@a/v1", "a/v1", "http://a/v1?key=x", "http:///v1"])
def test_a_base_url_is_plain_http(url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        OpenAISettings(base_url=url, model="m")


def test_to_ask_before_open_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="open"):
        OpenAIChat(OpenAISettings(base_url="http://127.0.0.1/v1", model="m")).chat(QUESTION)
