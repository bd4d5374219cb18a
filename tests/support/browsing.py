"""A real browser on the console's pages, and what it must not have seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.console_server import served
from tests.support.consoles import PASSWORD, Office, office
from tests.support.explaining import TENANT
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_BROWSER = "no Chromium on this machine: apt-get install chromium"

CONTRASTS = """() => {
  const channel = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
  };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    const over = (under, layer) => under.map((v, i) => layer[i] * layer[3] + v * (1 - layer[3]));
    return layers.reverse().reduce(over, [1, 1, 1]);
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    const text = walk.currentNode.textContent.trim().slice(0, 40);
    if (!text || element.closest(".over, svg.chart title") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = rgba(element instanceof SVGElement ? style.fill : style.color);
    const under = behind(element);
    const opacity = Number(style.opacity) * ink[3];
    const seen = ink.slice(0, 3).map((v, i) => v * opacity + under[i] * (1 - opacity));
    const [light, dark] = [luminance(seen), luminance(under)].sort((a, b) => b - a);
    found.push([(light + 0.05) / (dark + 0.05), text, element.className.toString()]);
  }
  return found;
}"""
"""Of every text that is shown: its contrast by WCAG 2.2, the text, and the class of its element."""


@dataclass(slots=True)
class Person:
    """Somebody at a browser of their own. `faults`: what the browser complained of, a forbidden script among it."""

    page: Page
    url: str
    context: BrowserContext
    faults: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def log_in(self, name: str, password: str = PASSWORD) -> Person:
        self.go("/login")
        self.page.fill("[name=name]", name)
        self.page.fill("[name=password]", password)
        self.page.click("main button")
        self.page.wait_for_url("**/queue")
        return self

    def ready(self) -> None:
        """Until keys of verdicts count: .6 s after the page's script has run, which is before the document's event."""
        shown = "performance.getEntriesByType('navigation')[0].domContentLoadedEventStart"
        # Not by `wait_for_function`, which evaluates text on the page: its policy forbids that.
        wait_until(lambda: self.page.evaluate(f"{shown} > 0 && performance.now() > {shown} + 650"), 30.0, "keys count")

    @property
    def at(self) -> str:
        """Path and query of the page."""
        return self.page.url.removeprefix(self.url)


@contextmanager
def person(browser: Browser, url: str, **options: Any) -> Iterator[Person]:
    """With a session, cookies and storage of their own."""
    context = browser.new_context(**options)
    page = context.new_page()
    somebody = Person(page, url, context)
    page.on("console", lambda message: somebody.faults.append(message.text))
    page.on("pageerror", lambda error: somebody.faults.append(str(error)))
    page.on("dialog", lambda dialog: somebody.faults.append(dialog.message))
    try:
        yield somebody
    finally:
        context.close()


@pytest.fixture(scope="module", name="browser")
def browser_fixture() -> Iterator[Any]:
    """One Chromium for all tests of a module."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(name="desk")
def office_fixture(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as opened:
        yield opened


People = Callable[..., Person]


@pytest.fixture(name="people")
def people_fixture(desk: Office, browser: Any) -> Iterator[People]:
    """Logs somebody in; further options are a browser context's."""
    hired: set[str] = set()
    with ExitStack() as opened:
        url = opened.enter_context(served(desk))

        def come(name: str, *, tenant: str = TENANT, **options: Any) -> Person:
            if name not in hired:
                desk.hire(name, [tenant])
                hired.add(name)
            return opened.enter_context(person(browser, url, **options)).log_in(name)

        yield come
