"""Runs one member of the classifier group: `python -m workers.classifier`."""

from __future__ import annotations

import sys

from schemas.types import StageName
from workers.start import start

if __name__ == "__main__":
    sys.exit(start(StageName.CLASSIFIER))
