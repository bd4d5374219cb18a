"""An error that nobody foresaw becomes a page of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Answer = Callable[[Request, Exception], Awaitable[Response]]


class BugPages:
    """ASGI middleware. Starlette's own handler answers outside of all middleware, hence without its headers."""

    def __init__(self, app: ASGIApp, answer: Answer) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. An answer that has begun cannot be taken back: the error goes on to the server."""
        begun = False

        async def noticing(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noticing)
        except Exception as error:
            if scope["type"] != "http" or begun:
                raise
            response = await self._answer(Request(scope), error)
            await response(scope, receive, send)
