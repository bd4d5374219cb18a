"""What a classifier backend is, whatever runs underneath."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.detection.classifier.preprocess import Pixels

Logits: TypeAlias = npt.NDArray[np.float32]


class BackendError(Exception):
    """A backend that cannot run: something is not installed, not there, or does not fit; says what to do."""


class ModelOutputError(Exception):
    """The model answered with another shape or with something that is not a number: a bug, never a score."""


class Backend(Protocol):
    """Crops in, raw logits out. Used by one thread at a time."""

    @property
    def model(self) -> str:
        """Name for `StageScore.model`, at most 128 characters."""

    def open(self) -> None:
        """Load the weights.

        Raises:
            BackendError: it cannot run here.
        """

    def score(self, crops: Pixels) -> Logits:
        """Raw logits, float32 (N,), of uint8 (N, S, S, 3); higher means synthetic.

        Raises:
            ModelOutputError: a result of another shape, or one that is not finite.
        """

    def close(self) -> None:
        """Give back what `open` took; may be called twice, and without `open`."""


def checked(logits: Logits, count: int, model: str) -> Logits:
    """The logits, if there is one finite float32 for each of `count` crops.

    Raises:
        ModelOutputError: otherwise.
    """
    if logits.shape != (count,) or logits.dtype != np.float32:
        raise ModelOutputError(f"{model}: expected float32 ({count},) logits, got {logits.dtype} {logits.shape}")
    if not np.isfinite(logits).all():
        raise ModelOutputError(f"{model}: a logit is not finite; the weights are broken or overflow")
    return logits
