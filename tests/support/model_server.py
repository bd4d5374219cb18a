"""A model server that is not ours: `transformers serve` as a process. Needs the extras [torch] and [modelserver]."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.waiting import wait_until

_START_S = 240.0
_FIRST_ANSWER_S = 240.0


@contextlib.contextmanager
def transformers_serve(model: Path, log: Path, port: int) -> Iterator[str]:
    """Base URL of a server pinned to the model in this directory, which has answered once when entered.

    The first answer takes longer than the others, so that it could be too late for the client's trials.

    Args:
        model: as `save_pretrained` writes it; the server calls it by this path.
        log: where its output goes.
        port: a `held_port`.

    Raises:
        AssertionError: it ended, or does not answer; with the end of its output.
    """
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}  # no test asks a hub
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            wait_until(lambda: _is_up(process, port, log), _START_S, f"transformers serve on port {port}")
            url = f"http://127.0.0.1:{port}/v1"
            _answer_once(url, model)
            yield url
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def _is_up(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    ended = process.poll()
    assert ended is None, f"transformers serve ended with {ended}: {log.read_text(errors='replace')[-2000:]}"
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _answer_once(url: str, model: Path) -> None:
    asked = {"model": str(model), "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    answer = httpx.post(f"{url}/chat/completions", json=asked, timeout=_FIRST_ANSWER_S, trust_env=False)
    assert answer.status_code == 200, answer.text
