"""The page in a real browser: it shows, it loads nothing, it blurs, and no text of strangers runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from pipeline.media.decode import DecodeLimits
from tests.support.explaining import Case, explained
from tests.support.mllm import encoded
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from workers.classifier.settings import SandboxSettings
from workers.explain.html import render
from workers.explain.pictures import PictureMaker

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = os.environ.get("EXPLAIN_SCREENSHOTS")
"""A folder for the screenshots, for people who look at them; otherwise they lie in pytest's own."""

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-features=LocalNetworkAccessChecks",  # a page from a file may ask a server on the loopback interface
)
BROWSER_S = 120.0

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium")
ATTACK = "</pre><script>document.title='run'</script><img src='http://127.0.0.1:9/x' onerror=\"document.title='run'\">"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One page for each kind of decision, with an image of one red and one blue half."""
    folder = Path(SHOTS) if SHOTS else tmp_path_factory.mktemp("pages")
    halves = np.zeros((256, 256, 3), np.uint8)
    halves[:, :128], halves[:, 128:] = (220, 30, 30), (30, 30, 220)
    original = encoded(Image.fromarray(halves))
    case = Case(original=original, panel=encoded(Image.new("RGB", (1024, 960), "white")), answer=ATTACK, detail=ATTACK)
    maker = PictureMaker(DecodeLimits(), SandboxSettings(workers=1))
    try:
        for kind in ("blocked", "escalated", "released"):
            told = explained(case, getattr(case, kind)())
            (folder / f"{kind}.html").write_text(render(told.story, told.pictures(maker.make)), "utf-8")
    finally:
        maker.close()
    return folder


def browse(page: Path, *arguments: str) -> str:
    """Standard output of a headless browser with a profile of its own: one that crashes leaves a lock in it."""
    assert BROWSER is not None
    with TemporaryDirectory(prefix="profile-", dir=page.parent, ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [BROWSER, *OPTIONS, f"--user-data-dir={profile}", *arguments, page.as_uri()],
            capture_output=True,
            text=True,
            timeout=BROWSER_S,
            check=True,
            encoding="utf-8",
        )
    return done.stdout


def screenshot(page: Path, name: str, scheme: str, height: int = 4200) -> Image.Image:
    out = page.parent / f"{name}-{scheme}.png"
    wanted = "0" if scheme == "dark" else "1"
    browse(
        page, f"--screenshot={out}", f"--window-size=1100,{height}", f"--blink-settings=preferredColorScheme={wanted}"
    )
    return Image.open(out).convert("RGB")


@pytest.mark.parametrize("kind", ["blocked", "escalated", "released"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_shows_in_both_colour_schemes(pages: Path, kind: str, scheme: str) -> None:
    shot = np.asarray(screenshot(pages / f"{kind}.html", kind, scheme))
    corner = shot[2, 2].mean()
    assert corner > 240 if scheme == "light" else corner < 40
    assert shot[:1500].std() > 10


def test_no_text_of_strangers_runs(pages: Path) -> None:
    dom = browse(pages / "blocked.html", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert title[1].startswith("mediasieve: block")
    assert "<script" not in dom
    assert "&lt;script&gt;document.title='run'&lt;/script&gt;" in dom


def test_the_image_is_blurred_until_the_box_is_ticked(pages: Path) -> None:
    """The border between the halves is sharp only when the box is ticked."""
    blurred = pages / "blocked.html"
    shown = pages / "shown.html"
    shown.write_text(blurred.read_text("utf-8").replace('id="show-original"', 'id="show-original" checked'), "utf-8")
    assert border_is_sharp(screenshot(shown, "shown", "light", 1200))
    assert not border_is_sharp(screenshot(blurred, "blurred", "light", 1200))


def border_is_sharp(shot: Image.Image) -> bool:
    """Whether plain red turns into plain blue within 4 px anywhere."""
    pixels = np.asarray(shot).astype(int)
    redness = pixels[:, :, 0] - pixels[:, :, 2]
    return bool(np.any((redness[:, :-4] > 120) & (redness[:, 4:] < -120)))


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """URL of a server, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_markup_that_got_past_the_escaping_would_load_and_run_nothing(
    pages: Path, requests: tuple[str, list[str]]
) -> None:
    """The page's own policy forbids it; without the policy the same markup does both."""
    url, asked = requests
    text = (pages / "released.html").read_text("utf-8")
    markup = f"<img src='{url}/image'><script>document.title = 'run'</script>"
    injected, open_page = pages / "injected.html", pages / "open.html"
    injected.write_text(text.replace("<main>", f"<main>{markup}"), "utf-8")
    open_page.write_text(re.sub("<meta http-equiv[^>]*>", "", injected.read_text("utf-8")), "utf-8")
    assert "<title>run</title>" not in browse(injected, "--dump-dom")
    assert asked == []
    assert "<title>run</title>" in browse(open_page, "--dump-dom")
    assert asked == ["/image"]
