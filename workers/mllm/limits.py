"""What keeps a model server from being asked too much: a circuit breaker, a token budget, a cap on what is in flight.

They wrap a `ChatModel`, so that dialogue and stage know nothing of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, Field

from pipeline.detection.mllm.backends.base import Verifier, VerifyRequest, VerifyResult
from pipeline.detection.mllm.chat import (
    Capabilities,
    ChatAnswer,
    ChatFailed,
    ChatModel,
    ChatRequest,
    ServerUnavailable,
)
from pipeline.observability.report_metrics import Reading
from schemas.decision import ReasonCode
from workers.mllm.breaker import Breaker, BreakerState, Clock, NotAsked
from workers.mllm.token_budget import TokenBudget

_SERVERS_FAULT = frozenset({ReasonCode.MLLM_TIMEOUT, ReasonCode.MLLM_UNAVAILABLE})
"""A refused or invalid answer shows that the server works."""

_WAITS_AS = {ReasonCode.MLLM_TIMEOUT: ReasonCode.MLLM_OVERLOADED}
"""A server that answers too late, time after time, has too much to do."""


class LimitSettings(BaseModel):
    """When the server is left alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(default=5, ge=1, le=1000, description="failed requests in a row that open the circuit")
    open_s: float = Field(
        default=10.0, gt=0, le=600, description="nothing is asked for so long then; one request probes the server after"
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1000,
        le=1_000_000_000,
        description="prompt and answer tokens of this worker; none: no budget. What is in flight may overdraw it once",
    )


class LimitedChatModel:
    """A chat model behind breaker, budget and cap. `chat` waits only for the cap, which each answer frees."""

    def __init__(
        self, model: ChatModel, settings: LimitSettings, in_flight: int, clock: Clock = time.monotonic
    ) -> None:
        self._model = model
        self._breaker = Breaker(settings.failures, settings.open_s, clock)
        limit = settings.tokens_per_minute
        self._budget = None if limit is None else TokenBudget(limit, clock)
        self._places = threading.BoundedSemaphore(in_flight)

    @property
    def model(self) -> str:
        """See ChatModel."""
        return self._model.model

    @property
    def capabilities(self) -> Capabilities:
        """See ChatModel."""
        return self._model.capabilities

    def open(self) -> None:
        """See ChatModel."""
        self._model.open()

    def close(self) -> None:
        """See ChatModel."""
        self._model.close()

    def refusal(self) -> NotAsked | None:
        """Why a dialogue that begins now would be refused; None when it would not."""
        return self._breaker.refusal() or (self._budget.refusal() if self._budget else None)

    def readings(self) -> Iterator[Reading]:
        """The breaker's state and, where there is one, the budget."""
        now = self._breaker.state
        for state in BreakerState:
            yield Reading("mediasieve_mllm_circuit", (state.value,), float(state is now))
        if self._budget is not None:
            yield Reading("mediasieve_mllm_budget_tokens", ("left",), self._budget.left)
            yield Reading("mediasieve_mllm_budget_tokens", ("per_minute",), self._budget.per_minute)

    def chat(self, request: ChatRequest) -> ChatAnswer:
        """See ChatModel.

        Raises:
            NotAsked: the server was not asked.
            ServerUnavailable, ChatFailed: as the model says.
        """
        with self._places, self._budgeted(request) as settle, self._watched():
            answer = self._model.chat(request)
            settle(answer.prompt_tokens + answer.completion_tokens)
            return answer

    @contextmanager
    def _watched(self) -> Iterator[None]:
        probe = self._breaker.admit()
        try:
            yield
        except ServerUnavailable as error:
            self._breaker.failed(probe, str(error), error.code, error.retry_after_s)
            raise
        except ChatFailed as error:
            if error.code in _SERVERS_FAULT:
                code = _WAITS_AS.get(error.code, error.code)
                self._breaker.failed(probe, f"{error.code.value}: {error.detail}", code)
            else:
                self._breaker.succeeded(probe)
            raise
        except BaseException:
            self._breaker.abandoned(probe)
            raise
        self._breaker.succeeded(probe)

    @contextmanager
    def _budgeted(self, request: ChatRequest) -> Iterator[Callable[[int], None]]:
        budget = self._budget
        if budget is None:
            yield lambda _: None
            return
        begun = any(message.role == "assistant" for message in request.messages)
        reserved = budget.reserve(request.max_tokens, begun=begun)
        try:
            yield lambda spent: budget.settle(reserved, spent)
        except ServerUnavailable:
            budget.give_back(reserved)
            raise


class GatedVerifier:
    """A verifier that prepares no pictures for a question that the limits would refuse."""

    def __init__(self, verifier: Verifier, limits: LimitedChatModel) -> None:
        self._verifier = verifier
        self._limits = limits

    @property
    def model(self) -> str:
        """See Verifier."""
        return self._verifier.model

    def readings(self) -> Iterator[Reading]:
        """Of the limits."""
        return self._limits.readings()

    def open(self) -> None:
        """See Verifier."""
        self._verifier.open()

    def verify(self, request: VerifyRequest) -> VerifyResult:
        """See Verifier.

        Raises:
            NotAsked: the server was not asked.
        """
        refused = self._limits.refusal()
        if refused:
            raise refused
        return self._verifier.verify(request)

    def close(self) -> None:
        """See Verifier."""
        self._verifier.close()
