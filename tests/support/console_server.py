"""The console on a port of its own, for a real browser."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from tests.support.consoles import Office
from workers.console.web.app import create_app


@contextmanager
def served(office: Office) -> Iterator[str]:
    """Its base URL, once it answers. The socket listens before the server starts, so that no port is lost to others."""
    config = uvicorn.Config(create_app(office.desk), log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="console")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
