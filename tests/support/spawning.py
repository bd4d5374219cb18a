"""A fixture for test files that start child processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture(scope="module", autouse=True)
def bare_main() -> Iterator[None]:
    """Hide the main module: a spawned child would import it, here all of pytest, half a second of CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", ModuleType("__main__"))
        yield
