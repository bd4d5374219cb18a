"""A chat model that makes up its answers without weights, and a server that puts any chat model behind HTTP."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.detection.mllm.chat import Capabilities, ChatAnswer, ChatModel, ChatRequest, Message, Token

_WORDS = ("band", "curve", "edge", "grid", "noise", "peak", "ring", "slope")
_CHOSEN_LOGPROB, _OTHER_LOGPROB = -0.1, -3.0


class HashChat:
    """See ChatModel: every answer follows from a digest of the question alone, a word or a piece of JSON a token."""

    model = "hash@1"
    capabilities = Capabilities(guided_json=True, logprobs=True, prefill=True)

    def __init__(self) -> None:
        self._is_open = False

    def open(self) -> None:
        self._is_open = True

    def chat(self, request: ChatRequest) -> ChatAnswer:
        if not self._is_open:
            raise RuntimeError("not open")
        digest = _digest(request)
        text = " ".join(_word(digest, i) for i in range(12))
        if request.schema is not None:
            text = json.dumps(_instance(request.schema, digest))
        pieces = re.findall(r"\s*[^\s]+|\s+", text)
        kept = pieces[: request.max_tokens]
        return ChatAnswer(
            text="".join(kept),
            finish="stop" if len(kept) == len(pieces) else "length",
            tokens=tuple(Token(p, _CHOSEN_LOGPROB, {p: _CHOSEN_LOGPROB, "~": _OTHER_LOGPROB}) for p in kept),
            prompt_tokens=_prompt_tokens(request),
            completion_tokens=len(kept),
        )

    def close(self) -> None:
        self._is_open = False


def _digest(request: ChatRequest) -> bytes:
    said = [(m.role, m.text, [hashlib.sha256(png).hexdigest() for png in m.images]) for m in request.messages]
    seed = request.seed if request.temperature > 0 else 0
    return hashlib.sha256(json.dumps([said, seed, request.prefill]).encode()).digest()


def _prompt_tokens(request: ChatRequest) -> int:
    words = " ".join([*(m.text for m in request.messages), request.prefill]).split()
    return len(words) + 4 * sum(len(m.images) for m in request.messages)


def _word(digest: bytes, index: int) -> str:
    return _WORDS[digest[index % len(digest)] % len(_WORDS)]


def _instance(schema: Any, digest: bytes) -> Any:
    """Some value of the schema, which has the keywords of `report.answer_schema`."""
    if "enum" in schema:
        return schema["enum"][digest[0] % len(schema["enum"])]
    if "anyOf" in schema:
        return _instance(schema["anyOf"][digest[1] % len(schema["anyOf"])], digest)
    if schema["type"] == "object":
        names = schema["properties"]
        return {name: _instance(names[name], hashlib.sha256(digest + name.encode()).digest()) for name in names}
    if schema["type"] == "array":
        return [_instance(schema["items"], digest) for _ in range(schema.get("minItems", 1))]
    plain = {
        "string": _word(digest, 2)[: schema.get("maxLength")],
        "integer": digest[3],
        "number": digest[4] / 255,
        "boolean": digest[5] % 2 == 0,
        "null": None,
    }
    return plain[schema["type"]]


@contextlib.contextmanager
def served(model: ChatModel) -> Iterator[str]:
    """The base URL of a server on the loopback interface that asks `model`, which is open."""
    handler = type("Bound", (_Handler,), {"chat_model": model})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a burst of clients is not refused


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    chat_model: ChatModel

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": [{"id": self.chat_model.model, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("continue_final_message") and body.get("add_generation_prompt"):
            self._reply(400, {"error": "continue_final_message and add_generation_prompt exclude each other"})
            return
        answer = self.chat_model.chat(_request(body))
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": answer.finish,
            "message": {"role": "assistant", "content": answer.text},
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_listed(token, body["top_logprobs"]) for token in answer.tokens]}
        usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
        self._reply(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

    def _reply(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet."""


def _request(body: dict[str, Any]) -> ChatRequest:
    messages = [_message(message) for message in body["messages"]]
    prefill = messages.pop().text if body.get("continue_final_message") else ""
    response_format = body.get("response_format")
    return ChatRequest(
        messages=tuple(messages),
        max_tokens=body["max_tokens"],
        temperature=body["temperature"],
        seed=body["seed"],
        prefill=prefill,
        schema=response_format["json_schema"]["schema"] if response_format else None,
    )


def _message(message: dict[str, Any]) -> Message:
    content = message["content"]
    if isinstance(content, str):
        return Message(message["role"], content)
    text = "".join(part["text"] for part in content if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return Message(message["role"], text, tuple(base64.b64decode(url.partition(",")[2]) for url in urls))


def _listed(token: Token, count: int) -> dict[str, Any]:
    ranked = sorted(token.alternatives.items(), key=lambda item: -item[1])[:count]
    top = [{"token": text, "logprob": value} for text, value in ranked]
    return {"token": token.text, "logprob": token.logprob, "top_logprobs": top}
