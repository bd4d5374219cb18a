"""Features of decoder pairs as they are kept on disk: readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class PairFeatures:
    """Of P pairs: `real`, `synthetic` and `matched` (softened photograph, a negative), float16 or float32 (P, D).

    `unit` (P,) is the decoder family, `source` (P,) the photograph's collection.
    """

    real: npt.NDArray[np.floating[Any]]
    synthetic: npt.NDArray[np.floating[Any]]
    matched: npt.NDArray[np.floating[Any]]
    unit: npt.NDArray[np.str_]
    source: npt.NDArray[np.str_]

    @classmethod
    def load(cls, path: Path) -> PairFeatures:
        """Read what `main` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            return cls(**{name: archive[name] for name in cls.__dataclass_fields__})
