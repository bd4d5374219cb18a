"""A browser without a screen: asks an ASGI application in this process, and fills in its forms."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.support.consoles import OTHER_TENANT, PASSWORD, Office, office
from tests.support.explaining import TENANT
from workers.console.web.app import create_app
from workers.web.principal import Role


class Browser:
    """Keeps cookies; follows no redirect by itself, so that each answer can be looked at."""

    def __init__(self, app: FastAPI, base_url: str = "http://console.test") -> None:
        self._runner = asyncio.Runner()
        self._app = app
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url=base_url)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self.client.aclose())
        self._runner.close()

    @contextmanager
    def running(self) -> Iterator[Browser]:
        """With what the application starts and ends, its decoders."""
        lifespan = self._app.router.lifespan_context(self._app)
        self._runner.run(lifespan.__aenter__())
        try:
            yield self
        finally:
            self._runner.run(lifespan.__aexit__(None, None, None))

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self._runner.run(self.client.get(path, headers=headers))

    def post(self, path: str, data: dict[str, str], **headers: str) -> httpx.Response:
        return self._runner.run(self.client.post(path, data=data, headers=headers))

    def send(self, path: str, **request: Any) -> httpx.Response:
        return self._runner.run(self.client.post(path, **request))

    def fill(self, path: str, action: str, **values: str) -> httpx.Response:
        """Send a form of a page as a browser does, with its hidden fields."""
        return self.post(action, form(self.get(path).text, action) | values)

    def log_in(self, name: str) -> Browser:
        assert self.fill("/login", "/login", name=name, password=PASSWORD).status_code == 303
        return self


def form(page: str, action: str) -> dict[str, str]:
    """The hidden fields of a page's form."""
    found = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>', page, re.DOTALL)
    assert found is not None, f"no form to {action}"
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', found[1]))


New = Callable[..., Browser]


@pytest.fixture(name="desk")
def desk_fixture(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as opened:
        yield opened


@pytest.fixture(name="new")
def new_fixture(desk: Office) -> Iterator[New]:
    """Makes browsers of ana, ben, rob who only reads, and sam of another tenant. The decoders are not started."""
    app = create_app(desk.desk)
    known: set[str] = set()
    with ExitStack() as opened:

        def make(name: str | None = None) -> Browser:
            browser = opened.enter_context(Browser(app))
            if name is None:
                return browser
            if name not in known:
                tenants = [OTHER_TENANT if name == "sam" else TENANT]
                desk.hire(name, tenants, Role.READ if name == "rob" else Role.REVIEW)
                known.add(name)
            return browser.log_in(name)

        yield make
