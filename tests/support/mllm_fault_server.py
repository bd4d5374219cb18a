"""An OpenAI-compatible server on the loopback interface that works until it is told how to fail."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.detection.mllm.chat import Token
from tests.support.mllm import plain_report, tokens_of

MODEL = "served-model"
REPORT = plain_report("gan", observations=[])
"""Valid for every request: it cites nothing."""

_TRIAL = "Say hello."


@dataclass
class Exchange:
    """One question and the means to answer it, well or badly. `pass_name`: reason, report or retry."""

    handler: BaseHTTPRequestHandler
    body: dict[str, Any]
    released: threading.Event

    @property
    def pass_name(self) -> str:
        questions = [message for message in self.body["messages"] if message["role"] == "user"]
        return ("reason", "report", "retry")[len(questions) - 1]

    def reply(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.start(status, len(data), headers)
        with contextlib.suppress(OSError):  # a client that has seen enough hangs up
            self.handler.wfile.write(data)

    def start(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.handler.send_response(status)
        self.handler.send_header("content-length", str(length))
        for name, value in (headers or {}).items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def say(self, text: str | None, finish: str = "stop", **message: Any) -> None:
        self.reply(200, completion(text, finish, **message))

    def hang(self) -> None:
        self.start(200, 1000)
        self.handler.close_connection = True
        self.released.wait(30)

    def drip(self) -> None:
        """A byte now and then, each within the client's wait for bytes, until the client hangs up."""
        self.start(200, 1000)
        self.handler.close_connection = True
        with contextlib.suppress(OSError):
            while not self.released.wait(0.05):
                self.handler.wfile.write(b" ")

    def cut(self) -> None:
        self.start(200, 1000)
        self.handler.wfile.write(b'{"choices": [')
        self.handler.close_connection = True


Act = Callable[[Exchange], None]


def completion(
    text: str | None,
    finish: str = "stop",
    tokens: tuple[Token, ...] = (),
    usage: tuple[int, int] = (1000, 200),
    **message: Any,
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "message": {"content": text, **message}}
    if tokens:
        choice["logprobs"] = {"content": [_listed(token) for token in tokens]}
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": counts}


def works(exchange: Exchange, usage: tuple[int, int] = (1000, 200)) -> None:
    """Examination, then a report that says gan at 0.9."""
    if exchange.pass_name == "reason":
        exchange.reply(200, completion(" of the grid at 1/16.", usage=usage))
        return
    text = json.dumps(REPORT)
    tokens = tokens_of(text, {"gan": 0.9, "aut": 0.1}) if exchange.body.get("logprobs") else ()
    exchange.reply(200, completion(text, tokens=tokens, usage=usage))


@dataclass
class FaultServer:
    """`act` answers the dialogue's questions; trials of what the server can do are answered by its two flags."""

    act: Act = works
    guided_json: bool = True
    logprobs: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        exchange = Exchange(handler, body, self.released)
        if not self.guided_json and "response_format" in body:
            exchange.reply(400, {"error": "response_format is not supported"})
        elif body["messages"][0]["content"] == _TRIAL:
            self._answer_trial(exchange)
        else:
            self.asked.append(body)
            self.act(exchange)

    def _answer_trial(self, exchange: Exchange) -> None:
        body = exchange.body
        if body.get("continue_final_message") and body.get("add_generation_prompt"):
            exchange.reply(400, {"error": "they exclude each other"})
            return
        text = '{"word": "zygote"}' if "response_format" in body else "hello"
        listed = self.logprobs and body.get("logprobs")
        tokens = (Token(text, -0.1, {text: -0.1, "hi": -3.0}),) if listed else ()
        exchange.reply(200, completion(text, tokens=tokens))


@contextlib.contextmanager
def running(script: FaultServer, port: int = 0) -> Iterator[int]:
    """Yields the port: the one given, which may be a `held_port`, or any."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            Exchange(self, {}, script.released).reply(200, {"object": "list", "data": [{"id": MODEL}]})

        def do_POST(self) -> None:
            script.answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # a burst of clients is not refused

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up, or speaks TLS, is a part of the script."""

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        script.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _listed(token: Token) -> dict[str, Any]:
    top = [{"token": text, "logprob": value} for text, value in token.alternatives.items()]
    return {"token": token.text, "logprob": token.logprob, "top_logprobs": top}
