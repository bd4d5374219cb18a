"""JSON over HTTP to one server, bounded in bytes and time; each failure has its fate."""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
from pydantic import SecretStr

from pipeline.detection.mllm.chat import ChatFailed, ServerUnavailable
from schemas.decision import ReasonCode

_MAX_CONNECT_S = 5.0
_KEEPALIVE_S = 2.0  # shorter than uvicorn's 5 s, so no request meets a connection being closed
_MAX_RETRY_AFTER_S = 300
_EXCERPT_CHARS = 300
_UNAVAILABLE_STATUSES = frozenset({429, 502, 503})
_TIMEOUT_STATUSES = frozenset({408, 504})


class HttpRefused(ChatFailed):
    """The server answered with an error of its own; `status` says which."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(ReasonCode.MLLM_UNAVAILABLE, detail)
        self.status = status


class Transport:
    """HTTP clients for any number of threads, one for each request in flight.

    One client for all would do, if its pool did not look at every connection for every request: at 64 in flight that
    took 2 ms of each. Redirects, proxies of the environment and compression are off.
    """

    def __init__(self, base_url: str, api_key: SecretStr | None, timeout_s: float) -> None:
        """Opens nothing. `timeout_s` bounds each wait for bytes, and the whole answer."""
        self._base_url = base_url.rstrip("/")
        self._key = api_key
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None
        self._idle: deque[httpx.Client] = deque()

    def open(self) -> None:
        """Read the certificates; connections come with the first requests."""
        self._tls = httpx.create_ssl_context(trust_env=False)

    def close(self) -> None:
        """Drop the connections; one in use is dropped after its request."""
        self._tls = None
        while self._idle:
            self._idle.pop().close()

    def get(self, path: str, max_bytes: int, timeout_s: float) -> bytes:
        """The body of a 200. Raises as `post`."""
        return self._exchange("GET", path, None, max_bytes, timeout_s)

    def post(self, path: str, body: dict[str, Any], max_bytes: int, timeout_s: float | None = None) -> bytes:
        """The body of a 200; `timeout_s` may shorten the client's.

        Raises:
            ServerUnavailable: connection or TLS refused, unknown host, or HTTP 429, 502, 503.
            HttpRefused: any other status.
            ChatFailed: MLLM_TIMEOUT, MLLM_UNAVAILABLE (the connection broke), MLLM_INVALID_REPORT (too large).
        """
        return self._exchange("POST", path, orjson.dumps(body), max_bytes, timeout_s or self._timeout_s)

    def excerpt(self, answer: bytes) -> str:
        """The start of an answer, on one line, without the key that a server may quote."""
        text = " ".join(answer.decode("utf-8", "replace").split())
        return (text.replace(self._key.get_secret_value(), "***") if self._key else text)[:_EXCERPT_CHARS]

    def _exchange(self, method: str, path: str, body: bytes | None, max_bytes: int, timeout_s: float) -> bytes:
        url = f"{self._base_url}/{path}"
        timeout_s = min(timeout_s, self._timeout_s)
        deadline_s = time.monotonic() + timeout_s
        limits = httpx.Timeout(timeout_s, connect=min(timeout_s, _MAX_CONNECT_S), pool=None)
        try:
            with self._client() as client, client.stream(method, url, content=body, timeout=limits) as response:
                answer = _read(response, deadline_s, max_bytes)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerUnavailable(f"{url}: {_cause(error)}") from error
        except httpx.TimeoutException as error:
            raise _timed_out("no answer", timeout_s) from error
        except httpx.TransportError as error:
            # Not ServerUnavailable: an item that kills the server would come back for ever.
            raise ChatFailed(ReasonCode.MLLM_UNAVAILABLE, f"the connection broke: {_cause(error)}") from error
        self._check_status(response, answer, timeout_s)
        return answer

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        """The client used last, whose connection is the likeliest to be open still."""
        tls = self._tls
        if tls is None:
            raise RuntimeError("the MLLM server was asked before open(), or after close()")
        try:
            client = self._idle.pop()
        except IndexError:
            client = self._new_client(tls)
        try:
            yield client
        finally:
            self._idle.append(client)
            if self._tls is None:
                self.close()

    def _new_client(self, tls: ssl.SSLContext) -> httpx.Client:
        return httpx.Client(
            # `identity`: a compressed answer could unfold to any size.
            headers={"content-type": "application/json", "accept-encoding": "identity"}
            | ({"authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {}),
            verify=tls,
            timeout=httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, _MAX_CONNECT_S), pool=None),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEPALIVE_S),
            follow_redirects=False,
            trust_env=False,
        )

    def _check_status(self, response: httpx.Response, answer: bytes, timeout_s: float) -> None:
        status = response.status_code
        if status == httpx.codes.OK:
            return
        if status in _UNAVAILABLE_STATUSES:
            busy = status == httpx.codes.TOO_MANY_REQUESTS
            code = ReasonCode.MLLM_OVERLOADED if busy else ReasonCode.MLLM_UNAVAILABLE
            raise ServerUnavailable(f"{self._base_url}: HTTP {status}", _retry_after_s(response), code)
        if status in _TIMEOUT_STATUSES:
            raise _timed_out(f"HTTP {status}", timeout_s)
        raise HttpRefused(status, f"HTTP {status}: {self.excerpt(answer)}")


def _read(response: httpx.Response, deadline_s: float, max_bytes: int) -> bytes:
    """The whole body, bounded in bytes and in time."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise ChatFailed(ReasonCode.MLLM_INVALID_REPORT, f"response: more than {max_bytes} bytes")
        if time.monotonic() > deadline_s:
            raise httpx.ReadTimeout("the answer arrives too slowly")
    return bytes(body)


def _retry_after_s(response: httpx.Response) -> float:
    """What the server asks for in seconds, bounded; 0 for none, or for a date, which needs a clock in common."""
    value = response.headers.get("retry-after", "")
    seconds = int(value) if value.isascii() and value.isdigit() and len(value) < 9 else 0
    return float(min(seconds, _MAX_RETRY_AFTER_S))


def _timed_out(cause: str, timeout_s: float) -> ChatFailed:
    return ChatFailed(ReasonCode.MLLM_TIMEOUT, f"{cause} within timeout_s={timeout_s:g}")


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
