"""The blocking client's way to a gateway that runs in the same process."""

from __future__ import annotations

import asyncio

import httpx

from tests.support.gateway import GatewaySite


class Bridge(httpx.BaseTransport):
    """The blocking client's way to the application."""

    def __init__(self, site: GatewaySite) -> None:
        self.site = site

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._ask(request))

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        inner = httpx.ASGITransport(self.site.app, raise_app_exceptions=False)
        body = request.read()
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=body)
        answer = await inner.handle_async_request(asked)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())
