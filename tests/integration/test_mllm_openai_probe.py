"""What a server can do and which model it serves: found out by trial, and again after a restart."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from pipeline.detection.mllm.backends import openai, openai_probe
from pipeline.detection.mllm.backends.openai import OpenAIChat, OpenAISettings, served_models
from pipeline.detection.mllm.chat import (
    Capabilities,
    ChatFailed,
    ChatRequest,
    ServerUnavailable,
)
from tests.support.openai_chats import (
    ALL,
    GUIDED,
    QUESTION,
    SCHEMA,
    absent_server,
    answered,
    chatting,
)
from tests.support.scripted_server import Reply, ScriptedServer, completion, serving
from tests.support.waiting import wait_until


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving(ScriptedServer()) as running:
        yield running


@pytest.mark.parametrize(
    "able", [(True, True, True), (False, True, False), (True, False, False), (False, False, False), (True, True, False)]
)
def test_what_a_server_does_is_found_out_at_open_and_logged(able: tuple[bool, bool, bool]) -> None:
    with structlog.testing.capture_logs() as logged, serving(ScriptedServer(able=able)) as server:
        with chatting(server) as chat:
            assert (chat.capabilities.guided_json, chat.capabilities.logprobs, chat.capabilities.prefill) == able
            assert server.asked == []
            chat.chat(QUESTION)
        trials = len(server.trials)
    assert trials <= 4, "it is tried once, with answers of a few tokens"
    assert all(body["max_tokens"] <= 64 for body in server.trials)
    (entry,) = [entry for entry in logged if entry["event"] == "mllm_server"]
    assert (entry["guided_json"], entry["logprobs"], entry["prefill"]) == able


def test_a_schema_that_is_taken_but_not_kept_is_no_guided_json(server: ScriptedServer) -> None:
    server.trial = lambda body: Reply(completion("Hello! How can I help?"))
    with chatting(server) as chat:
        assert chat.capabilities == Capabilities(guided_json=False, logprobs=False, prefill=False)


@pytest.mark.parametrize(
    ("text", "finish", "guided"),
    [
        ('{"word":"zygote"}', "stop", True),
        (' {\n  "word" : "zygote"\n}', "stop", True),
        ('{"word":' + " " * 200, "length", True),
        ('{"word":"hello"}', "stop", False),
        ('{"word":', "stop", False),
        (" " * 64, "length", False),
        ('```json\n{"word":"zygote"}\n```', "stop", False),
    ],
)
def test_guided_means_what_no_free_answer_would_be(
    server: ScriptedServer, text: str, finish: str, guided: bool
) -> None:
    server.trial = lambda body: Reply(completion(text, finish))
    with chatting(server) as chat:
        assert chat.capabilities.guided_json is guided


def test_what_is_lacking_is_asked_for_in_words() -> None:
    with serving(ScriptedServer(able=(False, False, False))) as server, chatting(server) as chat:
        chat.chat(ChatRequest(messages=QUESTION.messages, max_tokens=9, prefill="Let's see", schema=SCHEMA))
    (body,) = server.asked
    assert not {"response_format", "logprobs", "continue_final_message"} & body.keys()
    (message,) = body["messages"]
    text = message["content"][0]["text"]
    assert json.dumps(SCHEMA, separators=(",", ":")) in text
    assert "Let's see" in text


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"id": "test-model"}, "test-model"),
        ({"id": "test-model", "root": "test-model"}, "test-model"),
        ({"id": "test-model", "root": "/models/qwen-7b-0a1b2c"}, "test-model@/models/qwen-7b-0a1b2c"),
        ({"id": "test-model", "root": "x", "revision": "0a1b2c"}, "test-model@0a1b2c"),
        ({"id": "another", "root": "x"}, "test-model"),
    ],
)
def test_the_models_revision_is_what_the_server_tells(
    server: ScriptedServer, card: dict[str, str], expected: str
) -> None:
    server.models = [card]
    with chatting(server) as chat:
        assert chat.model == expected


def test_the_settings_revision_comes_first(server: ScriptedServer) -> None:
    server.models = [{"id": "test-model", "root": "/models/qwen"}]
    with chatting(server, revision="0a1b2c") as chat:
        assert chat.model == "test-model@0a1b2c"


@pytest.mark.parametrize("how", ["drop", "HTTP 503"])
def test_a_server_that_comes_back_as_another_is_found_out(server: ScriptedServer, how: str) -> None:
    server.models = [{"id": "test-model", "root": "rev-a"}]
    with chatting(server) as chat:
        assert (chat.model, chat.capabilities) == ("test-model@rev-a", ALL)
        server.answer = lambda _: Reply(how="drop") if how == "drop" else Reply(status=503)
        with pytest.raises((ChatFailed, ServerUnavailable)):
            chat.chat(QUESTION)
        server.models, server.able = [{"id": "test-model", "root": "rev-b"}], (False, False, False)
        server.answer = lambda _: Reply(completion("fine"))
        assert chat.chat(QUESTION).text == "fine"
        assert chat.model == "test-model@rev-b"
        assert chat.capabilities == Capabilities(guided_json=False, logprobs=False, prefill=False)


@pytest.mark.parametrize(("status", "tries"), [(429, 1), (400, 1), (502, 2)])
def test_only_what_a_restart_may_cause_is_looked_into(server: ScriptedServer, status: int, tries: int) -> None:
    with chatting(server) as chat:
        once = len(server.trials)
        server.answer = lambda _: Reply(status=status)
        for _ in range(2):
            with pytest.raises((ChatFailed, ServerUnavailable)):
                chat.chat(QUESTION)
        assert len(server.trials) == once * tries


def test_a_server_known_for_long_is_tried_again(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "_KNOWN_FOR_S", 0.0)
    with chatting(server) as chat:
        server.models = [{"id": "test-model", "root": "rev-b"}]
        chat.chat(QUESTION)
        assert chat.model == "test-model@rev-b"


def test_a_fingerprint_stands_in_for_a_revision(server: ScriptedServer) -> None:
    body = json.loads(completion('{"word":"zygote"}')) | {"system_fingerprint": "fp_9"}
    server.models, server.trial = None, lambda _: Reply(json.dumps(body).encode())
    with chatting(server) as chat:
        assert chat.model == "test-model@fp_9"


def test_a_server_that_was_down_at_open_is_asked_with_the_first_question() -> None:
    with absent_server() as (url, _), chatting(ScriptedServer(url=url)) as chat:
        assert chat.capabilities == openai_probe.ASSUMED
        with pytest.raises(ServerUnavailable):
            chat.chat(QUESTION)


def test_it_comes_up_later_and_is_known_then() -> None:
    with absent_server() as (url, port), chatting(ScriptedServer(url=url)) as chat, serving(ScriptedServer(), port):
        # For a moment the client may go by what it found at open.
        assert wait_until(lambda: answered(chat), 30.0, "the server that came up is asked").text == "fine"
        assert chat.capabilities == ALL


def test_a_server_that_fails_every_trial_is_taken_for_an_able_one_and_not_tried_with_each_question(
    server: ScriptedServer,
) -> None:
    server.trial = lambda _: Reply(b"engine fault", 500)
    with structlog.testing.capture_logs() as logged, chatting(server) as chat:
        tried = len(server.trials)
        assert chat.capabilities == openai_probe.ASSUMED
        for _ in range(3):
            assert chat.chat(GUIDED).text == "fine"
        assert len(server.trials) == tried == 4
    assert "response_format" in server.asked[0]
    assert [entry["event"] for entry in logged] == ["mllm_server_not_probed"]


def test_many_threads_try_the_server_once() -> None:
    ready = threading.Barrier(8, timeout=30)
    with serving(ScriptedServer()) as server:
        chat = OpenAIChat(OpenAISettings(base_url=server.url, model="test-model"))
        chat._transport.open()  # not `open`, which would try the server before there are threads

        def ask(_: int) -> str:
            ready.wait()
            return chat.chat(QUESTION).text

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(8))) == {"fine"}
        assert len(server.trials) == 3
    chat.close()


def test_the_models_of_a_server_can_be_listed(server: ScriptedServer) -> None:
    server.models = [{"id": "a"}, {"id": "b"}]
    assert served_models(OpenAISettings(base_url=server.url, model="?")) == ("a", "b")
    server.models = None
    assert served_models(OpenAISettings(base_url=server.url, model="?")) == ()
