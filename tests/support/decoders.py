"""A decoder for the sandbox, whose bytes are instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode
from tests.support.handlers import obey


def decode(data: bytes, declared_content_type: str | None) -> Any:
    """Carry out `b"verb argument"`: two of its own, or one of `tests.support.handlers`."""
    verb, _, argument = data.decode().partition(" ")
    match verb:
        case "refuse":
            raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"declared {declared_content_type}")
        case "opencv":
            return cv2.resize(np.zeros((8, 8, 1), np.uint8), (int(argument), int(argument))).shape
        case "threads":
            return cv2.getNumThreads()
    arguments = (int(argument) if argument.isdigit() else argument,) if argument else ()
    return obey((verb, *arguments))


def make_decode() -> Callable[[bytes, str | None], Any]:
    return decode
