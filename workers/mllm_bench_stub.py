"""A model server of fixed latency in a process of its own, for `mediasieve bench mllm`."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

MODEL = "stub"
_START_S = 60.0
_TRIAL_BYTES = 2**14
"""A question with pictures is larger than any trial of what a server can do."""
_TRIED = '{"word": "zygote"}'
_REPORT: dict[str, Any] = {
    "observations": [],
    "spatial_correlation": "none",
    "alternative_explanations": [],
    "hypothesis": "gan",
    "rank_guess": None,
    "confidence": 0.9,
    "primary_evidence": "a peak at 1/8",
}


class StubFailed(Exception):
    """The stub does not answer; the text says why."""


@contextmanager
def running_stub(latency_s: float) -> Iterator[int]:
    """The stub's port; it ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, latency_s), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_S):
            raise StubFailed(f"the stub did not start within {_START_S:g} s")
        yield int(ours.recv())
    finally:
        process.terminate()
        process.join()


def _serve(told: Connection, latency_s: float) -> None:
    asyncio.run(_Stub(latency_s).serve(told))


class _Stub:
    """Answers a trial at once, a question after the latency; as fast as one thread can read."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s

    async def serve(self, told: Connection) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**24, backlog=512)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                body = await _read_request(reader)
                if len(body) > _TRIAL_BYTES:
                    await asyncio.sleep(self._latency_s)
                answer = _answer(body)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    return await reader.readexactly(int(length.partition(b":")[2]))


def _answer(body: bytes) -> bytes:
    """Models, or text as it was asked for: the settings of a question stand behind its pictures."""
    if not body:
        return json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode()
    guided, trial = b'"response_format"' in body[-(2**15) :], len(body) <= _TRIAL_BYTES
    text = (_TRIED if trial else json.dumps(_REPORT)) if guided else "of the grid."
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": text}}
    usage = {"prompt_tokens": 3000, "completion_tokens": 200}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
