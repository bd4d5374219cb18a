"""Runs one member of the mllm group: `python -m workers.mllm`."""

from __future__ import annotations

import sys

from schemas.types import StageName
from workers.start import start

if __name__ == "__main__":
    sys.exit(start(StageName.MLLM))
