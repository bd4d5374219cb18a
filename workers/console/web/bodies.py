"""A limit on what a request may bring, before anything reads it."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware. Forms are small and browsers say how small: what does not is refused unread."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. A server lets no body be longer than it was said to be."""
        if scope["type"] == "http" and (refusal := self._refusal(Headers(scope=scope), scope["method"])):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, method: str) -> PlainTextResponse | None:
        length = headers.get("content-length")
        if length is None:
            is_bodiless = method in ("GET", "HEAD") and "transfer-encoding" not in headers
            return None if is_bodiless else PlainTextResponse("Say how long the body is: Content-Length.\n", 411)
        if not length.isascii() or not length.isdigit() or int(length) > self._max_bytes:
            return PlainTextResponse(f"A form has at most {self._max_bytes} bytes.\n", 413)
        return None
