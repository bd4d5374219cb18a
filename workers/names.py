"""Every kind of worker process, each a module `workers.NAME` and a consumer group of that name."""

from __future__ import annotations

from enum import StrEnum


class WorkerName(StrEnum):
    """The three stages, the one that logs what they decide, what people meet over HTTP, and the one that learns."""

    CLASSIFIER = "classifier"
    SPECTRAL = "spectral"
    MLLM = "mllm"
    AUDIT = "audit"
    GATEWAY = "gateway"
    CONSOLE = "console"
    ADAPTATION = "adaptation"


DECIDING = (WorkerName.CLASSIFIER, WorkerName.SPECTRAL, WorkerName.MLLM, WorkerName.AUDIT)
"""Those without which nothing is decided and recorded; people and producers meet the others."""
