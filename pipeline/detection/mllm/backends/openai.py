"""Any OpenAI-compatible server: vLLM, SGLang, llama.cpp, a hosted API."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from pipeline.detection.mllm.backends import openai_probe, openai_wire
from pipeline.detection.mllm.backends.openai_http import HttpRefused, Transport
from pipeline.detection.mllm.backends.openai_probe import ServerInfo
from pipeline.detection.mllm.chat import (
    Capabilities,
    ChatAnswer,
    ChatFailed,
    ChatRequest,
    ServerUnavailable,
    in_words,
)
from schemas.decision import ReasonCode

log = structlog.get_logger(__name__)

_PROBE_AGAIN_S = 30.0
"""After a server that answered no trial."""

_KNOWN_FOR_S = 300.0
"""A server that was started anew with other weights or flags, between two requests, is found out after so long."""

_ABSENT_FOR_S = 1.0
"""Whoever waited for a trial that nothing answered is told so, and does not try in turn."""

_MAX_MODEL_CHARS = 128
"""`schemas.media.StageScore.model` holds no more."""


class OpenAISettings(BaseModel):
    """Where the model is served."""

    # Without hide_input_in_errors a rejected api_key would be quoted by the validation error.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str = Field(
        pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$",
        max_length=512,
        description="Root of the API, such as http://127.0.0.1:8000/v1; no credentials in it.",
    )
    model: str = Field(min_length=1, max_length=128, description="Model name as the server knows it.")
    revision: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Of the weights, such as a commit; for a server that does not tell it (vLLM does not). A "
        "calibration holds for one revision.",
    )
    api_key: SecretStr | None = Field(default=None, description="Sent as a bearer token if given.")
    timeout_s: float = Field(
        default=30.0, gt=0.0, le=600.0, description="For one answer, queueing at the server included."
    )

    @field_validator("api_key")
    @classmethod
    def _key_fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            text = key.get_secret_value()
            if not (text and text.isascii() and text.isprintable() and " " not in text):
                raise ValueError("api_key must be printable ASCII without spaces; look for a stray newline")
        return key


class OpenAIChat:
    """See ChatModel. Shared by all threads. An answer takes at most about twice `timeout_s`.

    The timeout is checked while the answer arrives and bounds each wait for bytes, hence the factor.
    """

    def __init__(self, settings: OpenAISettings) -> None:
        """Opens nothing."""
        self._settings = settings
        self._transport = Transport(settings.base_url, settings.api_key, settings.timeout_s)
        self._server: ServerInfo | None = None
        self._probing = threading.Lock()
        self._probe_again_s = 0.0
        self._absent: tuple[float, ServerUnavailable] | None = None

    @property
    def model(self) -> str:
        """The name as configured, with the revision of the settings, or that the server tells once it was asked."""
        revision = self._settings.revision or (self._server.revision if self._server else "")
        return (f"{self._settings.model}@{revision}" if revision else self._settings.model)[:_MAX_MODEL_CHARS]

    @property
    def capabilities(self) -> Capabilities:
        """As found by trial; before that what most servers do."""
        return self._server.capabilities if self._server else openai_probe.ASSUMED

    def open(self) -> None:
        """Make the client and ask the server what it can do; one that is down now is asked again by `chat`."""
        self._transport.open()
        try:
            self._discover()
        except ServerUnavailable as error:
            log.warning("mllm_server_absent", url=self._settings.base_url, cause=str(error))

    def chat(self, request: ChatRequest) -> ChatAnswer:
        """One answer.

        Raises:
            ServerUnavailable: connection or TLS refused, unknown host, or HTTP 429, 502, 503.
            ChatFailed: MLLM_TIMEOUT, MLLM_REFUSED, MLLM_INVALID_REPORT (no completion, or too large a one), or
                MLLM_UNAVAILABLE (any other status, a broken connection).
            RuntimeError: before `open`.
        """
        able = self._discover()
        wants_logprobs = request.schema is not None and able.logprobs
        worded = in_words(request, schema=not able.guided_json, prefill=not able.prefill)
        body = openai_wire.request_body(worded, self._settings.model, logprobs=wants_logprobs)
        most = openai_wire.max_answer_bytes(request.max_tokens, logprobs=wants_logprobs)
        with self._noticing_a_restart():
            answer = self._transport.post("chat/completions", body, most)
        return openai_wire.read_answer(answer, worded.prefill, self._transport.excerpt)

    def close(self) -> None:
        """Drop the connections."""
        self._transport.close()

    @contextmanager
    def _noticing_a_restart(self) -> Iterator[None]:
        """What answers after a broken connection may be another model, or have other flags."""
        try:
            yield
        except HttpRefused as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            hint = f"{error.detail}; is openai.model {self._settings.model!r} served at {self._settings.base_url}?"
            raise ChatFailed(error.code, hint) from error
        except ServerUnavailable as error:
            if error.code is not ReasonCode.MLLM_OVERLOADED:
                self._probe_again_s = 0.0
            raise
        except ChatFailed as error:
            if error.code is ReasonCode.MLLM_UNAVAILABLE:
                self._probe_again_s = 0.0
            raise

    def _discover(self) -> Capabilities:
        """One thread asks. Whoever comes meanwhile waits for the first trial ever, and goes on during a later one."""
        if time.monotonic() < self._probe_again_s:
            return self.capabilities
        if not self._probing.acquire(blocking=self._probe_again_s == 0.0 and self._server is None):
            return self.capabilities
        try:
            if time.monotonic() >= self._probe_again_s:
                self._probe()
        finally:
            self._probing.release()
        return self.capabilities

    def _probe(self) -> None:
        """A server that answers no trial is taken for what it was, or for an able one."""
        if self._absent and time.monotonic() < self._absent[0]:
            raise ServerUnavailable(str(self._absent[1]))
        try:
            server = openai_probe.probe(self._transport, self._settings.model)
        except ServerUnavailable as error:
            self._absent = (time.monotonic() + _ABSENT_FOR_S, error)
            raise
        except ChatFailed as error:
            self._probe_again_s = time.monotonic() + _PROBE_AGAIN_S
            log.warning("mllm_server_not_probed", url=self._settings.base_url, cause=error.detail)
            return
        self._probe_again_s = time.monotonic() + _KNOWN_FOR_S
        if server != self._server:
            self._server = server
            log.info("mllm_server", model=self.model, **server.facts)


def served_models(settings: OpenAISettings) -> tuple[str, ...]:
    """Names of the models at this address; empty when the server does not tell.

    Raises:
        ServerUnavailable: nothing answered.
    """
    transport = Transport(settings.base_url, settings.api_key, settings.timeout_s)
    transport.open()
    try:
        return openai_probe.served_models(transport)
    finally:
        transport.close()
