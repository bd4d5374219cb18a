"""One turn with a multimodal chat model, whatever serves it. What is asked, and how often, is `dialogue`'s affair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

from schemas.decision import ReasonCode

Role: TypeAlias = Literal["user", "assistant"]
FinishReason: TypeAlias = Literal["stop", "length"]


class ServerUnavailable(Exception):
    """Nothing answers, or it takes no work now: the caller defers, the item is not at fault.

    `retry_after_s`: what the server asked for, 0 if it did not say. `code`: what people are told who get the item
    after waiting in vain; `MLLM_OVERLOADED` where the server works and has too much to do.
    """

    def __init__(self, detail: str, retry_after_s: float = 0.0, code: ReasonCode = ReasonCode.MLLM_UNAVAILABLE) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.code = code


class ChatFailed(Exception):
    """This question got no usable answer; `code` says why, `raw_text` is what came, if anything did."""

    def __init__(self, code: ReasonCode, detail: str, raw_text: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.raw_text = raw_text


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: text, then its pictures as PNG bytes."""

    role: Role
    text: str
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What to continue.

    `prefill` is the start of the answer, which the model goes on from; where a back end cannot, it is asked for in
    words and the answer counts as it comes. `schema`: the answer is held to this JSON Schema where the back end can.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    prefill: str = ""
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the answer, its natural log probability, and those of the likeliest at its place, it among them."""

    text: str
    logprob: float
    alternatives: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """`text` without the prefill. `tokens` is empty where the back end gives no log probabilities."""

    text: str
    finish: FinishReason
    tokens: tuple[Token, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the back end really does, found out at `open`; what it lacks is made up for, and recorded in the trace."""

    guided_json: bool
    logprobs: bool
    prefill: bool


class ChatModel(Protocol):
    """A model behind one call. `chat` is thread-safe; its concurrency is the caller's."""

    @property
    def model(self) -> str:
        """Name and revision, for the decision's `StageScore.model` and the trace."""

    @property
    def capabilities(self) -> Capabilities:
        """Known after `open`; a server that was down at `open` is asked again with the first `chat`."""

    def open(self) -> None:
        """Take connections or load weights. A server that is down now shows in `chat`, not here."""

    def chat(self, request: ChatRequest) -> ChatAnswer:
        """One answer.

        Raises:
            ServerUnavailable: nothing answered; try again later.
            ChatFailed: this question cannot be answered: refused, timed out, broken.
        """

    def close(self) -> None:
        """Give back what `open` took; also after a failed `open`."""


def in_words(request: ChatRequest, *, schema: bool, prefill: bool) -> ChatRequest:
    """The same question for a back end that lacks something: what it cannot be held to, the last message asks for.

    Args:
        request: ends with a message of the user.
        schema: write the JSON Schema out.
        prefill: write out how the answer shall begin.
    """
    asked = []
    if schema and request.schema is not None:
        asked.append(f"The JSON Schema of the answer:\n{json.dumps(request.schema, separators=(',', ':'))}")
    if prefill and request.prefill:
        asked.append(f'Begin your answer with the words "{request.prefill}".')
    if not asked:
        return request
    *before, last = request.messages
    worded = replace(last, text="\n\n".join((last.text.rstrip(), *asked)) + "\n")
    return replace(
        request,
        messages=(*before, worded),
        schema=None if schema else request.schema,
        prefill="" if prefill else request.prefill,
    )
