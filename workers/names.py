"""Every kind of worker process, each a module `workers.NAME` and a consumer group of that name."""

from __future__ import annotations

from enum import StrEnum


class WorkerName(StrEnum):
    """The three stages, and the worker that keeps the audit log of what they decide."""

    CLASSIFIER = "classifier"
    SPECTRAL = "spectral"
    MLLM = "mllm"
    AUDIT = "audit"
