"""Any OpenAI-compatible server: vLLM, SGLang, a hosted API."""

from __future__ import annotations

import time
from typing import Annotated

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from pipeline.detection.mllm.backends.base import ServerUnavailable, VerifyRequest, VerifyResult
from pipeline.detection.mllm.report import ReportError, parse_report
from pipeline.detection.mllm.request import chat_request
from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode
from schemas.forensics import ForensicReport
from schemas.wire import describe

_MAX_CONNECT_S = 5.0
_MAX_RESPONSE_BYTES = 4 * 1024 * 1024
_KEEPALIVE_S = 2.0  # shorter than uvicorn's 5 s, so no request meets a connection being closed
_EXCERPT_CHARS = 300
_UNAVAILABLE_STATUSES = frozenset({429, 502, 503})
_TIMEOUT_STATUSES = frozenset({408, 504})


class OpenAISettings(BaseModel):
    """Where the model is served and how much it may write."""

    # Without hide_input_in_errors a rejected api_key would be quoted by the validation error.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str = Field(
        pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$",
        max_length=512,
        description="Root of the API, such as http://127.0.0.1:8000/v1; no credentials in it.",
    )
    model: str = Field(
        min_length=1,
        max_length=128,
        description="Model name as the server knows it, with its revision where the server pins one.",
    )
    api_key: SecretStr | None = Field(default=None, description="Sent as a bearer token if given.")
    timeout_s: float = Field(
        default=30.0, gt=0.0, le=600.0, description="For one answer, queueing at the server included."
    )
    max_tokens: int = Field(default=2048, ge=256, le=32768, description="Length limit of one answer, in tokens.")

    @field_validator("api_key")
    @classmethod
    def _key_fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            text = key.get_secret_value()
            if not (text and text.isascii() and text.isprintable() and " " not in text):
                raise ValueError("api_key must be printable ASCII without spaces; look for a stray newline")
        return key


class OpenAIVerifier:
    """One HTTP client, shared by all threads. A request runs for at most about twice `timeout_s`.

    The timeout is checked while the answer arrives and bounds each wait for bytes, hence the factor.
    """

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._client: httpx.Client | None = None

    @property
    def model(self) -> str:
        """The model's name as configured."""
        return self._settings.model

    def open(self) -> None:
        """Make the client; connections come with the first request."""
        key = self._settings.api_key
        timeout_s = self._settings.timeout_s
        self._client = httpx.Client(
            # `identity`: a compressed answer could unfold to any size.
            headers={"content-type": "application/json", "accept-encoding": "identity"}
            | ({"authorization": f"Bearer {key.get_secret_value()}"} if key else {}),
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _MAX_CONNECT_S), pool=None),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE_S),
            follow_redirects=False,
            trust_env=False,
        )

    def verify(self, request: VerifyRequest) -> VerifyResult:
        """Ask once.

        Raises:
            ServerUnavailable: connection refused, unknown host, or HTTP 429, 502, 503.
        """
        started = time.monotonic()
        raw_text, detail = "", ""
        report: ForensicReport | None = None
        failure: ReasonCode | None = None
        try:
            body = orjson.dumps(chat_request(request, self.model, self._settings.max_tokens))
            raw_text = self._answer_text(self._post(body))
            report = parse_report(raw_text)
        except _Failed as error:
            failure, detail, raw_text = error.code, error.detail, error.raw_text
        except MediaError as error:
            failure, detail = error.code, f"original: {error.detail}"
        except ReportError as error:
            failure, detail = ReasonCode.MLLM_INVALID_REPORT, error.detail
        return VerifyResult(
            report=report,
            failure=failure,
            detail=detail,
            model=self.model,
            raw_text=raw_text,
            duration_s=time.monotonic() - started,
        )

    def close(self) -> None:
        """Drop the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _post(self, body: bytes) -> bytes:
        if self._client is None:
            raise RuntimeError("OpenAIVerifier.verify was called before open()")
        url = f"{self._settings.base_url.rstrip('/')}/chat/completions"
        deadline = time.monotonic() + self._settings.timeout_s
        try:
            with self._client.stream("POST", url, content=body) as response:
                answer = _read(response, deadline)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerUnavailable(f"{url}: {_cause(error)}") from error
        except httpx.TimeoutException as error:
            raise self._timed_out() from error
        except httpx.TransportError as error:
            # Not ServerUnavailable: an item that kills the server would come back for ever.
            raise _Failed(ReasonCode.MLLM_UNAVAILABLE, f"the connection broke: {_cause(error)}") from error
        self._check_status(response.status_code, answer)
        return answer

    def _check_status(self, status: int, answer: bytes) -> None:
        if status == httpx.codes.OK:
            return
        if status in _UNAVAILABLE_STATUSES:
            raise ServerUnavailable(f"{self._settings.base_url}: HTTP {status}")
        if status in _TIMEOUT_STATUSES:
            raise self._timed_out(f"HTTP {status}")
        raise _Failed(ReasonCode.MLLM_UNAVAILABLE, f"HTTP {status}: {self._excerpt(answer)}")

    def _timed_out(self, cause: str = "no answer") -> _Failed:
        return _Failed(ReasonCode.MLLM_TIMEOUT, f"{cause} within timeout_s={self._settings.timeout_s:g}")

    def _answer_text(self, answer: bytes) -> str:
        """The message's content of a complete, unrefused answer."""
        try:
            completion = _Completion.model_validate_json(answer)
        except ValidationError as error:
            detail = f"response: {describe(error)}"
            raise _Failed(ReasonCode.MLLM_INVALID_REPORT, detail, self._excerpt(answer)) from error
        choice = completion.choices[0]
        text = choice.message.content or ""
        if choice.message.refusal:
            raise _Failed(ReasonCode.MLLM_REFUSED, f"refusal: {choice.message.refusal}", text)
        if choice.finish_reason == "content_filter":
            raise _Failed(ReasonCode.MLLM_REFUSED, "finish_reason: content_filter", text)
        if choice.finish_reason == "length":
            detail = f"finish_reason: length; cut off at max_tokens={self._settings.max_tokens}"
            raise _Failed(ReasonCode.MLLM_INVALID_REPORT, detail, text)
        if not text:
            raise _Failed(ReasonCode.MLLM_INVALID_REPORT, "message.content: empty")
        return text

    def _excerpt(self, answer: bytes) -> str:
        """The start of an answer, on one line, without the key that a server may quote."""
        text = " ".join(answer.decode("utf-8", "replace").split())
        key = self._settings.api_key
        return (text.replace(key.get_secret_value(), "***") if key else text)[:_EXCERPT_CHARS]


class _Failed(Exception):
    def __init__(self, code: ReasonCode, detail: str, raw_text: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.raw_text = raw_text


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    choices: Annotated[list[_Choice], Field(min_length=1)]


def _read(response: httpx.Response, deadline: float) -> bytes:
    """The whole body, bounded in bytes and in time."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > _MAX_RESPONSE_BYTES:
            raise _Failed(ReasonCode.MLLM_INVALID_REPORT, f"response: more than {_MAX_RESPONSE_BYTES} bytes")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer arrives too slowly")
    return bytes(body)


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
