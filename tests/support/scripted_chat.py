"""A chat model that says what a function tells it to."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.detection.mllm.chat import Capabilities, ChatAnswer, ChatRequest, Message


def question(text: str = "?", *, begun: bool = False, max_tokens: int = 100) -> ChatRequest:
    """A first question, or one that goes on with a dialogue."""
    before = (Message("user", "?"), Message("assistant", "!")) if begun else ()
    return ChatRequest(messages=(*before, Message("user", text)), max_tokens=max_tokens)


def answer(tokens: int = 0, text: str = "fine") -> ChatAnswer:
    return ChatAnswer(text=text, finish="stop", prompt_tokens=tokens, completion_tokens=0)


class ScriptedChat:
    """See ChatModel."""

    model = "scripted@1"
    capabilities = Capabilities(guided_json=True, logprobs=True, prefill=True)

    def __init__(self, says: Callable[[ChatRequest], ChatAnswer] = lambda _: answer()) -> None:
        self.says = says
        self.asked: list[ChatRequest] = []
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def chat(self, request: ChatRequest) -> ChatAnswer:
        self.asked.append(request)
        return self.says(request)

    def close(self) -> None:
        self.calls.append("close")
