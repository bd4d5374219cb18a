"""Rates, times and shares as people write them."""

from __future__ import annotations

import math
import re

from pipeline.capacity.profile import Visits

_TIMES_S = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "day": 86_400.0}
_NUMBER = re.compile(r"^\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(.*?)\s*$")
_SHARES = {"suspect": "spectral", "anomalous": "mllm", "retry": "retry"}


def rate(text: str) -> float:
    """`500/s`, `1e9/day`, `30/min` -> a second.

    Raises:
        ValueError: no positive number, or another unit.
    """
    number, unit = _split(text, "a rate such as 500/s or 1e9/day")
    if not unit.startswith("/") or unit[1:].strip() not in _TIMES_S or number <= 0:
        raise ValueError(f"{text!r}: give a rate such as 500/s, 30/min or 1e9/day")
    return number / _TIMES_S[unit[1:].strip()]


def seconds(text: str) -> float:
    """`2s`, `500ms`, `5min` -> seconds.

    Raises:
        ValueError: no positive number, or another unit.
    """
    number, unit = _split(text, "a time such as 2s or 500ms")
    if unit not in _TIMES_S or number <= 0:
        raise ValueError(f"{text!r}: give a time such as 2s, 500ms or 5min")
    return number * _TIMES_S[unit]


def mix(text: str) -> Visits:
    """`suspect=10%,anomalous=2%,retry=1%`: shares of the references that reach tier 2, tier 3 and a retry topic.

    Raises:
        ValueError: an unknown or missing name, or a share outside 0 to 1.
    """
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, sign, value = part.partition("=")
        if not sign or name.strip() not in _SHARES:
            raise ValueError(f"{part!r}: give suspect=10%,anomalous=2% and, if you like, retry=1%")
        found[_SHARES[name.strip()]] = _share(value.strip())
    missing = [name for name, field in _SHARES.items() if field not in found and name != "retry"]
    if missing:
        raise ValueError(f"{text!r}: {' and '.join(missing)} missing; `mediasieve plan` predicts them from your scores")
    return Visits(**found)


def _share(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{text!r}: give a share such as 10% or 0.1")
    return value


def _split(text: str, wanted: str) -> tuple[float, str]:
    match = _NUMBER.match(text)
    if match is None or not math.isfinite(float(match[1])):
        raise ValueError(f"{text!r}: give {wanted}")
    return float(match[1]), match[2]
