"""Every suite that needs nothing but the images, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pipeline.evaluation.robustness.attacks import ATTACKS
from pipeline.evaluation.robustness.degradations import DELIVERY, GENIMAGE
from pipeline.evaluation.robustness.hard_reals import HARD_REALS
from pipeline.evaluation.robustness.transform import Variant

Classes: TypeAlias = Literal["both", "real", "synthetic"]

SUITES: Mapping[str, tuple[Variant, ...]] = {
    "genimage": GENIMAGE,
    "delivery": DELIVERY,
    "hard_reals": HARD_REALS,
    "attacks": ATTACKS,
}
"""`decoder_attacks` and `laundering` join them where the caller has decoders."""

APPLIES_TO: Mapping[str, Classes] = {
    "genimage": "both",
    "delivery": "both",
    "hard_reals": "real",
    "attacks": "synthetic",
}
"""The class that a suite says something about; the other one is left out of it."""


def applies(suite: str, synthetic: bool) -> bool:
    """Whether an image of this class belongs into the suite."""
    return APPLIES_TO[suite] in ("both", "synthetic" if synthetic else "real")
