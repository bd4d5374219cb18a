"""What becomes of an item whose model server takes no work: it waits its time, then people decide. It never passes."""

from __future__ import annotations

import time
from typing import Any

from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.streaming.stage import Defer, DeferScope, Item
from schemas.decision import Reason, ReasonCode
from workers.mllm.breaker import NotAsked
from workers.verdicts import reason

_SERVER = "MLLM server: "
_OVERLOAD = "MLLM overload: "


def shed(item: Item[Any], error: ServerUnavailable, max_wait_s: float) -> Reason | None:
    """Why an item is given to people now, or None while it may wait.

    Given up is what has waited longer than `max_wait_s` in its topic and still was not asked, because the circuit is
    open or the budget is spent. A server that was asked and had no answer is waited for, as any dependency is.
    """
    waited_s = time.time() - item.queued_at_s
    if not isinstance(error, NotAsked) or waited_s <= max_wait_s:
        return None
    return reason(error.code, f"waited {waited_s:.0f} s, max_wait_s={max_wait_s:g}; {error}")


def too_old(item: Item[Any], max_age_s: float) -> Reason | None:
    """Why an item is given to people without a question, or None: more arrives than the model can take."""
    waited_s = time.time() - item.queued_at_s
    if waited_s <= max_age_s:
        return None
    return reason(ReasonCode.MLLM_OVERLOADED, f"waited {waited_s:.0f} s, max_age_s={max_age_s:g}")


def waiting(error: ServerUnavailable) -> Defer:
    """The partition waits, no less than the server or the limits ask for."""
    prefix = _OVERLOAD if error.code is ReasonCode.MLLM_OVERLOADED else _SERVER
    return Defer(DeferScope.DEPENDENCY, f"{prefix}{error}", retry_after_s=error.retry_after_s)


def gave_up(cause: str) -> ReasonCode | None:
    """The reason for what the runner stops waiting for by the cause of its last `Defer`; None: not a cause of ours."""
    if cause.startswith(_OVERLOAD):
        return ReasonCode.MLLM_OVERLOADED
    return ReasonCode.MLLM_UNAVAILABLE if cause.startswith(_SERVER) else None
