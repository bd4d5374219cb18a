"""An `OpenAIChat` against a `ScriptedServer`, and what it is asked in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.detection.mllm.backends.openai import OpenAIChat, OpenAISettings
from pipeline.detection.mllm.chat import (
    Capabilities,
    ChatAnswer,
    ChatFailed,
    ChatRequest,
    Message,
    ServerUnavailable,
)
from tests.support.mllm import encoded, picture
from tests.support.mllm_ports import held_port
from tests.support.scripted_server import ScriptedServer

API_KEY = "sk-very-secret-123"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
PNGS = (encoded(picture(16, 12)), encoded(picture(8, 8)))
QUESTION = ChatRequest(messages=(Message("user", "what is it?", PNGS),), max_tokens=500)
GUIDED = ChatRequest(messages=QUESTION.messages, max_tokens=500, schema=SCHEMA)
PREFILLED = ChatRequest(messages=QUESTION.messages, max_tokens=500, prefill="Let's see")
ALL = Capabilities(guided_json=True, logprobs=True, prefill=True)


@contextmanager
def chatting(server: ScriptedServer, **settings: Any) -> Iterator[OpenAIChat]:
    given = {"base_url": server.url, "model": "test-model", "api_key": API_KEY} | settings
    chat = OpenAIChat(OpenAISettings(**given))
    chat.open()
    try:
        yield chat
    finally:
        chat.close()


def failure(server: ScriptedServer, request: ChatRequest = QUESTION, **settings: Any) -> ChatFailed:
    with chatting(server, **settings) as chat, pytest.raises(ChatFailed) as caught:
        chat.chat(request)
    return caught.value


@contextmanager
def absent_server() -> Iterator[tuple[str, int]]:
    """The base URL and the port of a server that is not there; one may come up on the port."""
    with held_port() as port:
        yield f"http://127.0.0.1:{port}/v1", port


def answered(chat: OpenAIChat) -> ChatAnswer | None:
    """None while the server is said to be absent."""
    try:
        return chat.chat(QUESTION)
    except ServerUnavailable:
        return None
