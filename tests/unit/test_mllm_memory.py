"""The allocator settings are taken by the C library of this machine, where it is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from pipeline.settings import FleetSettings
from workers.mllm.settings import MllmSettings
from workers.mllm.worker import build

TRY = "import sys; from workers.mllm.memory import steady_allocator; sys.exit(not steady_allocator())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_glibc_takes_the_settings():
    # In a process of its own: they cannot be taken back.
    assert subprocess.run([sys.executable, "-c", TRY], check=False).returncode == 0


def test_a_library_without_it_is_left_alone(monkeypatch):
    from workers.mllm import memory

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert memory.steady_allocator() is False


def test_the_worker_has_them_before_it_loads_anything(monkeypatch):
    class Steadied(Exception):
        """Ends `build` where it would change this process."""

    def steady_allocator():
        raise Steadied

    monkeypatch.setattr("workers.mllm.worker.steady_allocator", steady_allocator)
    monkeypatch.setattr("workers.mllm.worker.Bundle", None)
    with pytest.raises(Steadied):
        build(FleetSettings(), MllmSettings())
