"""What a server really does, found by trial: names of APIs promise what many servers leave out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from pipeline.detection.mllm.backends.openai_http import HttpRefused, Transport
from pipeline.detection.mllm.backends.openai_wire import max_answer_bytes, read_answer, request_body
from pipeline.detection.mllm.chat import Capabilities, ChatAnswer, ChatFailed, ChatRequest, Message
from schemas.decision import ReasonCode

ASSUMED = Capabilities(guided_json=True, logprobs=True, prefill=False)
"""Of a server that answered no trial: what vLLM, SGLang and hosted APIs do without extensions."""

_TIMEOUT_S = 30.0
"""For a trial of a few tokens, also at a server that is busy or has no GPU. The client's own may be shorter."""

_MAX_TOKENS = 64
_MAX_MODELS_BYTES = 1 << 20
_NOT_ABOUT_CAPABILITIES = frozenset({401, 403, 404})
_WORD = "zygote"
_SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": [_WORD]}},
    "required": ["word"],
    "additionalProperties": False,
}
_QUESTION = ChatRequest(messages=(Message("user", "Say hello."),), max_tokens=_MAX_TOKENS, schema=_SCHEMA)
"""No model says this word to that question, unless it is held to the schema."""

_PLAIN = replace(_QUESTION, schema=None)
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """`revision`: what the server says of the model beyond its name; empty if nothing. `models`: all it serves."""

    capabilities: Capabilities
    revision: str
    models: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """For the log."""
        return {**asdict(self.capabilities), "served": self.models}


def probe(transport: Transport, model: str) -> ServerInfo:
    """Ask for the models, then try guided JSON, log probabilities and prefill with answers of a few tokens.

    Raises:
        ServerUnavailable: nothing answered.
        ChatFailed: the server refuses or fails every trial, so that nothing is known; a 404 names the models.
    """
    cards = _models(transport)
    try:
        guided_json, logprobs, fingerprint = _answers(transport, model)
    except HttpRefused as error:
        if error.status == 404 and cards:
            served = ", ".join(card.id for card in cards)
            raise ChatFailed(
                error.code, f"{error.detail}; is openai.model {model!r} right? served: {served}"
            ) from error
        raise
    able = Capabilities(guided_json=guided_json, logprobs=logprobs, prefill=_continues(transport, model))
    card = next((card for card in cards if card.id == model), None)
    return ServerInfo(able, (card.beyond_the_name if card else "") or fingerprint, tuple(card.id for card in cards))


def served_models(transport: Transport) -> tuple[str, ...]:
    """Names of the models; empty when the server does not tell.

    Raises:
        ServerUnavailable: nothing answered.
    """
    return tuple(card.id for card in _models(transport))


class _Card(BaseModel):
    id: str
    root: str | None = None
    revision: str | None = None

    @property
    def beyond_the_name(self) -> str:
        return self.revision or (self.root if self.root and self.root != self.id else "")


class _Cards(BaseModel):
    data: list[_Card]


class _Fingerprint(BaseModel):
    system_fingerprint: str | None = None


def _models(transport: Transport) -> tuple[_Card, ...]:
    try:
        body = transport.get("models", _MAX_MODELS_BYTES, _TIMEOUT_S)
    except ChatFailed:
        return ()
    cards = _parsed(_Cards, body)
    return tuple(cards.data) if cards else ()


def _answers(transport: Transport, model: str) -> tuple[bool, bool, str]:
    """Guided JSON, log probabilities and the fingerprint by the first trial that the server does not refuse."""
    last: HttpRefused | None = None
    for question, logprobs in ((_QUESTION, True), (_PLAIN, True), (_QUESTION, False), (_PLAIN, False)):
        try:
            body, answer = _try(transport, request_body(question, model, logprobs=logprobs))
        except HttpRefused as error:
            if error.status in _NOT_ABOUT_CAPABILITIES:
                raise
            last = error
            continue
        fingerprint = _parsed(_Fingerprint, body)
        guided = question.schema is not None and _is_guided(answer)
        listed = logprobs and any(len(token.alternatives) > 1 for token in answer.tokens)
        return guided, listed, (fingerprint.system_fingerprint if fingerprint else None) or ""
    raise ChatFailed(
        ReasonCode.MLLM_UNAVAILABLE, f"the server refuses the plainest question: {last.detail if last else ''}"
    )


def _is_guided(answer: ChatAnswer) -> bool:
    """Held to the schema; white space, which grammars allow without end, may have cut it off behind its start."""
    text = "".join(answer.text.split())
    whole = f'{{"word":"{_WORD}"}}'
    return text == whole or (answer.finish == "length" and len(text) > 1 and whole.startswith(text))


def _continues(transport: Transport, model: str) -> bool:
    """True for a server that goes on from the last message of the assistant.

    One that knows `continue_final_message` refuses it together with `add_generation_prompt`; one that does not
    ignores both. So a refusal of the contradiction and an answer to the right pair prove it.
    """
    body = request_body(replace(_PLAIN, prefill="Hello"), model, logprobs=False)
    if _takes(transport, body | {"add_generation_prompt": True}):
        return False
    return _takes(transport, body)


def _takes(transport: Transport, body: dict[str, Any]) -> bool:
    try:
        _try(transport, body)
    except HttpRefused:
        return False
    return True


def _try(transport: Transport, body: dict[str, Any]) -> tuple[bytes, ChatAnswer]:
    answer = transport.post("chat/completions", body, max_answer_bytes(_MAX_TOKENS, logprobs=True), _TIMEOUT_S)
    return answer, read_answer(answer, "", transport.excerpt)


def _parsed(model: type[Model], body: bytes) -> Model | None:
    try:
        return model.model_validate(orjson.loads(body))
    except (orjson.JSONDecodeError, ValidationError):
        return None
