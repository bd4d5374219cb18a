"""A server of the chat completions API on the loopback interface that answers by script, in good order or badly."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from pipeline.detection.mllm.chat import Token

PROBE_TEXT = "Say hello."
Body = dict[str, Any]


def completion(content: Any, finish_reason: str = "stop", tokens: Sequence[Token] = (), **message: Any) -> bytes:
    """The body of an answer, with the log probabilities of `tokens` if there are any."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content, **message},
    }
    if tokens:
        choice["logprobs"] = {"content": [_listed(token) for token in tokens]}
    usage = {"prompt_tokens": 900, "completion_tokens": 100}
    return json.dumps({"object": "chat.completion", "model": "served", "choices": [choice], "usage": usage}).encode()


def _listed(token: Token) -> dict[str, Any]:
    top = [{"token": text, "logprob": logprob} for text, logprob in token.alternatives.items()]
    return {"token": token.text, "logprob": token.logprob, "top_logprobs": top}


@dataclass
class Reply:
    """What is sent back, and how.

    `hang`: nothing after the headers. `drip`: a byte now and then. `drop`: the connection ends before an answer.
    `cut`: it ends in the middle of the body.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    how: Literal["whole", "hang", "drip", "drop", "cut"] = "whole"


@dataclass
class ScriptedServer:
    """`answer` is asked for each question but the trials by which a client finds out what the server can do.

    Those are answered by `able` (guided JSON, log probabilities, prefill), or by `trial` if given. `asked` and
    `trials` are the bodies that came; `seen` the path and the headers of all.
    """

    answer: Callable[[Body], Reply] = lambda _: Reply(completion("fine"))
    able: tuple[bool, bool, bool] = (True, True, True)
    trial: Callable[[Body], Reply] | None = None
    models: list[dict[str, Any]] | None = field(default_factory=lambda: [{"id": "test-model"}])
    asked: list[Body] = field(default_factory=list)
    trials: list[Body] = field(default_factory=list)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def reply_to(self, body: Body) -> Reply:
        """To one question or trial."""
        if not str(body["messages"][0]["content"]).startswith(PROBE_TEXT):
            self.asked.append(body)
            return self.answer(body)
        self.trials.append(body)
        return self.trial(body) if self.trial else self._try(body)

    def _try(self, body: Body) -> Reply:
        guided, logprobs, prefill = self.able
        if prefill and body.get("add_generation_prompt") and body.get("continue_final_message"):
            return Reply(b'{"error": "cannot set both"}', 400)
        if "response_format" in body and not guided:
            return Reply(b'{"error": "response_format is not supported"}', 400)
        text = '{"word": "zygote"}' if "response_format" in body else "Hello!"
        listed = (Token(text, -0.1, {text: -0.1, "other": -2.0}),) if logprobs and body.get("logprobs") else ()
        return Reply(completion(text, tokens=listed))


@contextmanager
def serving(server: ScriptedServer, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Runs it; its address is `server.url`. Hanging answers are let go at the end. `port` may be a `held_port`."""
    handler = type("Scripted", (_Handler,), {"script": server})
    http = _Server(("127.0.0.1", port), handler)
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        http.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a burst of clients is not refused

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or that shuns the certificate, is no fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: ScriptedServer

    def do_GET(self) -> None:
        self._note()
        models = self.script.models
        body = json.dumps({"object": "list", "data": models}).encode()
        self._send(Reply(body) if models is not None else Reply(b"", 404))

    def do_POST(self) -> None:
        self._note()
        self._send(self.script.reply_to(json.loads(self.rfile.read(int(self.headers["content-length"])))))

    def _note(self) -> None:
        self.script.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))

    def _send(self, reply: Reply) -> None:
        self.close_connection = reply.how != "whole"
        if reply.how == "drop":
            return
        with contextlib.suppress(OSError):
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self._send_body(reply)

    def _send_body(self, reply: Reply) -> None:
        if reply.how == "hang":
            self.script.released.wait(30)
        elif reply.how == "cut":
            self.wfile.write(reply.body[: len(reply.body) // 2])
        elif reply.how == "whole":
            self.wfile.write(reply.body)
        else:
            for byte in reply.body:  # each within the client's wait for bytes
                self.wfile.write(bytes([byte]))
                if self.script.released.wait(0.05):
                    return

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet."""
