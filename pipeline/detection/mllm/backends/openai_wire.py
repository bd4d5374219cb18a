"""Questions and answers as the chat completions API writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pybase64
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.detection.mllm.chat import ChatAnswer, ChatFailed, ChatRequest, FinishReason, Message, Token
from pipeline.detection.mllm.report import SCHEMA_NAME
from schemas.decision import ReasonCode
from schemas.wire import describe

TOP_LOGPROBS = 10
"""Alternatives asked for at each token: the five verdicts, with room for other ways to write their quote."""

_BASE_BYTES = 262_144
_BYTES_A_TOKEN, _BYTES_A_LISTED_TOKEN = 64, 3072
"""The most that a token is granted in an answer: its text; with it and its alternatives as JSON."""


def request_body(request: ChatRequest, model: str, *, logprobs: bool) -> dict[str, Any]:
    """The body. Pictures go as data URIs: the server is never given an address to fetch."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": request.max_tokens,
    }
    if request.prefill:
        body["messages"].append({"role": "assistant", "content": request.prefill})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.schema is not None:
        json_schema = {"name": SCHEMA_NAME, "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return body


def max_answer_bytes(max_tokens: int, *, logprobs: bool) -> int:
    """What an answer of so many tokens may have; a larger one is not read to its end."""
    return _BASE_BYTES + max_tokens * (_BYTES_A_LISTED_TOKEN if logprobs else _BYTES_A_TOKEN)


def read_answer(answer: bytes, prefill: str, excerpt: Callable[[bytes], str]) -> ChatAnswer:
    """The first choice of a completion. Log probabilities that are not as the API says count as not given.

    Raises:
        ChatFailed: MLLM_INVALID_REPORT for what is no completion, MLLM_REFUSED for a refusal.
    """
    try:
        completion = _Completion.model_validate_json(answer)
    except ValidationError as error:
        detail = f"response: {describe(error)}"
        raise ChatFailed(ReasonCode.MLLM_INVALID_REPORT, detail, excerpt(answer)) from error
    choice = completion.choices[0]
    text = choice.message.content or ""
    if choice.message.refusal:
        raise ChatFailed(ReasonCode.MLLM_REFUSED, f"refusal: {choice.message.refusal}", text)
    if choice.finish_reason == "content_filter":
        raise ChatFailed(ReasonCode.MLLM_REFUSED, "finish_reason: content_filter", text)
    finish: FinishReason = "length" if choice.finish_reason == "length" else "stop"
    usage = completion.usage or _Usage()
    return ChatAnswer(
        text=text.removeprefix(prefill) if prefill else text,
        finish=finish,
        tokens=_tokens(choice.logprobs),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _message(message: Message) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.text}]
    parts += [{"type": "image_url", "image_url": {"url": data_uri(png)}} for png in message.images]
    return {"role": message.role, "content": parts}


def data_uri(png: bytes) -> str:
    """The picture itself as a URI."""
    return "data:image/png;base64," + pybase64.b64encode_as_string(png)


class _Said(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Said
    finish_reason: str | None = None
    logprobs: Any = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


class _Alternative(BaseModel):
    token: str
    logprob: Annotated[float, Field(allow_inf_nan=False)]


class _Listed(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Logprobs(BaseModel):
    content: list[_Listed]


def _tokens(logprobs: Any) -> tuple[Token, ...]:
    try:
        listed = _Logprobs.model_validate(logprobs).content
    except ValidationError:
        return ()
    return tuple(
        Token(t.token, t.logprob, {t.token: t.logprob} | {a.token: a.logprob for a in t.top_logprobs}) for t in listed
    )
