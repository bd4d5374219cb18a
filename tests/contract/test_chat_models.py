"""What every chat model owes the dialogue."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image

from pipeline.detection.mllm.backends.openai import OpenAIChat, OpenAISettings
from pipeline.detection.mllm.backends.transformers import TransformersModel, TransformersSettings
from pipeline.detection.mllm.chat import ChatAnswer, ChatModel, ChatRequest, Message
from tests.support.chat_server import HashChat, served

pytestmark = pytest.mark.timeout(600)  # the first import of torch and transformers alone may take half a minute

needs_torch = [
    pytest.mark.torch,
    pytest.mark.skipif(
        any(importlib.util.find_spec(m) is None for m in ("torch", "transformers", "xgrammar")),
        reason="needs mediasieve[torch]",
    ),
    # torch and its friends warn of their own future
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "seen": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 2},
        "band": {"anyOf": [{"type": "string", "enum": ["low", "mid", "high"]}, {"type": "null"}]},
        "sure": {"type": "boolean"},
        "verdict": {"type": "string", "enum": ["authentic", "base_diffusion", "gan"]},
    },
    "required": ["seen", "band", "sure", "verdict"],
    "additionalProperties": False,
}


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").point(lambda v: v * shade // 8).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def question(text: str = "What is this?", *images: bytes, **more: Any) -> ChatRequest:
    more.setdefault("max_tokens", 160)
    return ChatRequest(messages=(Message("user", text, images),), **more)


def near(first: ChatAnswer, second: ChatAnswer) -> bool:
    """The same text from nearly the same probabilities: another batch may round differently."""
    same_words = (first.text, first.finish) == (second.text, second.finish)
    pairs = zip(first.tokens, second.tokens, strict=True)
    return same_words and all(math.isclose(a.logprob, b.logprob, abs_tol=1e-3) for a, b in pairs)


@contextlib.contextmanager
def hashed(_tiny: Callable[[], Path]) -> Iterator[ChatModel]:
    yield HashChat()


@contextlib.contextmanager
def transformers_model(tiny: Callable[[], Path]) -> Iterator[ChatModel]:
    yield TransformersModel(TransformersSettings(path=str(tiny()), device="cpu"))


@contextlib.contextmanager
def openai(inner: Callable[..., Any], tiny: Callable[[], Path]) -> Iterator[ChatModel]:
    with inner(tiny) as model:
        model.open()
        with served(model) as url:
            yield OpenAIChat(OpenAISettings(base_url=url, model=model.model, timeout_s=120))
        model.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    saved: list[Path] = []

    def save() -> Path:
        from tests.support.tiny_mllm import save_tiny_mllm

        if not saved:
            saved.append(save_tiny_mllm(tmp_path_factory.mktemp("tiny")))
        return saved[0]

    return save


MODELS = [
    pytest.param(hashed, id="hash"),
    pytest.param(lambda tiny: openai(hashed, tiny), id="openai-hash"),
    pytest.param(transformers_model, id="transformers", marks=needs_torch),
    pytest.param(lambda tiny: openai(transformers_model, tiny), id="openai-transformers", marks=needs_torch),
]


@pytest.fixture(params=MODELS)
def closed(request: pytest.FixtureRequest, tiny: Callable[[], Path]) -> Iterator[ChatModel]:
    with request.param(tiny) as model:
        yield model
        model.close()


@pytest.fixture
def model(closed: ChatModel) -> ChatModel:
    closed.open()
    return closed


def test_it_can_do_all_that_the_dialogue_may_ask(model: ChatModel) -> None:
    able = model.capabilities
    assert able.guided_json
    assert able.logprobs
    assert able.prefill


def test_its_name_fits_the_decision(model: ChatModel) -> None:
    assert 0 < len(model.model) <= 128


def test_a_question_gets_a_text_within_the_limit(model: ChatModel) -> None:
    answer = model.chat(question(max_tokens=24))
    assert answer.text
    assert 0 < answer.completion_tokens <= 24
    assert answer.prompt_tokens > 0


def test_max_tokens_cuts_the_answer_and_says_so(model: ChatModel) -> None:
    answer = model.chat(question(schema=SCHEMA, max_tokens=3))
    assert answer.finish == "length"
    assert answer.completion_tokens == 3


def test_every_picture_reaches_the_model_in_its_place(model: ChatModel) -> None:
    asked = [(), (png(1),), (png(1), png(8)), (png(8), png(1))]
    answers = [model.chat(question("Compare.", *images, schema=SCHEMA)) for images in asked]
    sizes = [answer.prompt_tokens for answer in answers]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]
    assert len({(a.text, *(round(t.logprob, 4) for t in a.tokens)) for a in answers[1:]}) == 3


def test_pictures_of_an_earlier_turn_stay_in_the_talk(model: ChatModel) -> None:
    turns = (Message("user", "Look.", (png(1), png(8))), Message("assistant", "I see."), Message("user", "And?"))
    bare = tuple(replace(turn, images=()) for turn in turns)
    with_pictures, without = (
        model.chat(ChatRequest(messages=messages, max_tokens=8)).prompt_tokens for messages in (turns, bare)
    )
    assert with_pictures > without


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guided_answers_are_of_the_schema(model: ChatModel, temperature: float) -> None:
    for seed in range(4):
        answer = model.chat(question("Report.", png(4), schema=SCHEMA, temperature=temperature, seed=seed))
        assert answer.finish == "stop", answer.text
        jsonschema.validate(json.loads(answer.text), SCHEMA)


def test_tokens_spell_the_answer_and_their_probabilities_add_up(model: ChatModel) -> None:
    answer = model.chat(question("Report.", png(4), schema=SCHEMA))
    assert answer.tokens
    assert "".join(token.text for token in answer.tokens) == answer.text
    for token in answer.tokens:
        assert token.alternatives[token.text] >= token.logprob - 1e-6
        assert sum(map(math.exp, token.alternatives.values())) <= 1.0 + 1e-4


def test_a_prefill_is_gone_on_from_and_not_repeated(model: ChatModel) -> None:
    prefill = "Let's examine the style"
    plain, begun = (model.chat(question(max_tokens=16, prefill=start)) for start in ("", prefill))
    assert not begun.text.startswith(prefill)
    assert begun.text != plain.text
    assert begun.prompt_tokens > plain.prompt_tokens


def test_temperature_0_says_the_same_again(model: ChatModel) -> None:
    asked = question("Again.", png(2), schema=SCHEMA)
    assert near(model.chat(asked), model.chat(asked))


def test_a_seed_decides_where_the_temperature_is_above_0(model: ChatModel) -> None:
    asked = [question("Draw.", schema=SCHEMA, temperature=1.0, seed=seed) for seed in (1, 1, 2, 3, 4)]
    first, again, *others = [model.chat(request) for request in asked]
    assert near(first, again)
    assert any(other.text != first.text for other in others)


def test_threads_get_the_answers_to_their_own_questions(model: ChatModel) -> None:
    asked = [question(f"Number {i}?", *[png(i + 1)] * (i % 3), schema=SCHEMA) for i in range(8)]
    alone = [model.chat(request) for request in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(model.chat, asked))
    assert len({answer.text for answer in alone}) > 1
    assert all(map(near, alone, together))


def test_chat_needs_open_and_close_can_be_repeated(closed: ChatModel) -> None:
    with pytest.raises(RuntimeError):
        closed.chat(question())
    closed.close()
    closed.open()
    assert closed.chat(question(max_tokens=4)).completion_tokens > 0
    closed.close()
    closed.close()
    with pytest.raises(RuntimeError):
        closed.chat(question())
