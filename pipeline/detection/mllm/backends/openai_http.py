"""JSON over HTTP to one server, bounded in bytes and time; each failure has its fate."""

from __future__ import annotations

import time
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
    """One HTTP client, shared by all threads. Redirects, proxies of the environment and compression are off."""

    def __init__(self, base_url: str, api_key: SecretStr | None, timeout_s: float) -> None:
        """Opens nothing. `timeout_s` bounds each wait for bytes, and the whole answer."""
        self._base_url = base_url.rstrip("/")
        self._key = api_key
        self._timeout_s = timeout_s
        self._client: httpx.Client | None = None

    def open(self) -> None:
        """Make the client; connections come with the first request."""
        self._client = httpx.Client(
            # `identity`: a compressed answer could unfold to any size.
            headers={"content-type": "application/json", "accept-encoding": "identity"}
            | ({"authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {}),
            timeout=httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, _MAX_CONNECT_S), pool=None),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE_S),
            follow_redirects=False,
            trust_env=False,
        )

    def close(self) -> None:
        """Drop the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

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
        if self._client is None:
            raise RuntimeError("the MLLM server was asked before open(), or after close()")
        url = f"{self._base_url}/{path}"
        timeout_s = min(timeout_s, self._timeout_s)
        deadline_s = time.monotonic() + timeout_s
        limits = httpx.Timeout(timeout_s, connect=min(timeout_s, _MAX_CONNECT_S), pool=None)
        try:
            with self._client.stream(method, url, content=body, timeout=limits) as response:
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
