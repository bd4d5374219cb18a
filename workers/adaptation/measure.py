"""Measures reviewed images in a process of its own: their bytes are strangers'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.evaluation.perceptual_hash import dhash256
from pipeline.guarded_process import ChildDied, ChildRaised, ChildTimeout, GuardedProcess, Limits
from pipeline.media.decode import decode_image
from pipeline.training.spectral_family import measured_copies


@dataclass(frozen=True, slots=True)
class Measured:
    """Features of an image's copies by stratum, see `measured_copies`, and what it shows as a difference hash."""

    features: dict[str, list[float]]
    picture: int


class Unmeasurable(Exception):
    """The image says nothing, or cannot be read; the text says why."""


class Measurer:
    """One child, replaced when an image kills it. For one thread."""

    def __init__(self, timeout_s: float, memory_bytes: int) -> None:
        """The child starts with the first image."""
        self._timeout_s = timeout_s
        self._limits = Limits(memory_bytes=memory_bytes)
        self._child: GuardedProcess | None = None

    def measure(self, data: bytes) -> Measured:
        """Measure one image.

        Raises:
            Unmeasurable: it is not decodable, takes too long or too much memory, or ends the process.
        """
        if self._child is None:
            self._child = GuardedProcess(_make_handler, name="measurer", limits=self._limits)
            self._child.start()
        try:
            found: Measured | str = self._child.call(data, self._timeout_s)
        except (ChildDied, ChildRaised, ChildTimeout) as error:
            self.close()
            raise Unmeasurable(f"measuring it failed: {str(error).strip().splitlines()[-1]}") from error
        if isinstance(found, str):
            raise Unmeasurable(found)
        return found

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def _make_handler() -> Callable[[bytes], Measured | str]:
    return _measured


def _measured(data: bytes) -> Measured | str:
    """The features, or in one line why there are none."""
    try:
        return Measured(measured_copies(data, "the image"), dhash256(decode_image(data).rgb))
    except ValueError as error:
        return str(error)
