"""Ports on which a model server is down, or not up yet."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A loopback port that refuses connections and that no other process is given meanwhile.

    A server of this test may listen on it, and end, as often as it likes: on Linux a socket with SO_REUSEADDR can be
    bound to a port whose other sockets have the option too and do not listen. The kernel picks such a port for nobody
    who asks for any free one, and for no outgoing connection.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
