"""Strangers' text, pictures and evidence on the pages, and the headers around them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.media.content_store import ContentStore
from tests.support.consoles import ATTACK, ATTACK_URI, Office, office
from tests.support.explaining import TENANT
from tests.support.pages import Browser, New, desk_fixture, new_fixture  # noqa: F401 - fixtures
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from workers.console.web.app import create_app
from workers.console.web.templating import static_files

PAGES = ("/queue", "/recent", "/search", "/search?q=img", "/dashboard", "/dashboard?hours=168")
OUR_SCRIPTS = {
    f'<script src="/static/{name}?v={static_files()[name].version}"{defer}>'
    for name, defer in (("theme.js", ""), ("console.js", " defer"))
}


def test_text_of_strangers_is_written_as_text_everywhere(new: New, desk: Office) -> None:
    decision = desk.case("img-1", uri=ATTACK_URI, labels={"desk": ATTACK}, answer=ATTACK, detail=ATTACK).escalated()
    case = desk.take(decision)
    browser = new("ana")
    browser.fill("/queue", "/claim", case_id=case)
    pages = {path: browser.get(path).text for path in (*PAGES, f"/cases/{case}", f"/search?q={ATTACK}")}
    browser.fill(f"/cases/{case}", f"/cases/{case}/verdict", label="photograph", rationale=ATTACK)
    pages["closed"] = browser.get(f"/cases/{case}").text
    browser.fill(f"/cases/{case}", f"/cases/{case}/appeal", reason=ATTACK)
    pages["appealed"] = browser.get(f"/cases/{case}").text
    for name, page in pages.items():
        assert set(re.findall(r"<script[^>]*>", page)) <= OUR_SCRIPTS, name
        assert not re.search(r"<[^>\"]*(\"[^\"]*\"[^>\"]*)*\son\w+\s*=", page), name
        assert "<img src=x" not in page, name
    assert "&lt;script&gt;document.title" in pages["closed"]
    assert "%22%3E%3Cimg" in pages["/queue"] or "&#34;&gt;&lt;img/src=x" in pages["/queue"]


def test_characters_that_hide_or_reorder_are_written_out(new: New, desk: Office) -> None:
    case = desk.escalated(labels={"desk": "in\u202egpj.exe\u200b"})
    page = new("ana").get(f"/cases/{case}").text
    assert "in&lt;U+202E&gt;gpj.exe&lt;U+200B&gt;" in page


@pytest.mark.parametrize("path", ["/login", "/queue", "/cases/none", "/static/console.js", "/nothing"])
def test_every_answer_carries_the_policy(new: New, path: str) -> None:
    headers = new("ana").get(path).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


def test_pages_are_not_kept_by_browsers_and_files_are(new: New) -> None:
    browser = new("ana")
    assert browser.get("/queue").headers["cache-control"] == "no-store"
    assert "immutable" in browser.get("/static/console.css").headers["cache-control"]


def test_templates_hold_no_inline_script_style_or_handler() -> None:
    """The policy would not run them; nobody shall write one and wonder."""
    folder = Path(__file__).parents[2] / "workers/console/web/templates"
    for path in folder.iterdir():
        text = path.read_text("utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path.name
        assert not re.search(r"\s(style|on[a-z]+)=", text), path.name


@pytest.mark.parametrize("length", [None, "70000", "-1", "x"])
def test_bodies_that_are_too_large_or_of_unknown_length_are_not_read(new: New, length: str | None) -> None:
    async def unmeasured() -> AsyncIterator[bytes]:
        yield b"a"

    content = unmeasured() if length is None else b""
    answer = new().send("/login", content=content, headers={} if length is None else {"content-length": length})
    assert answer.status_code == (411 if length is None else 413)


def test_an_error_of_ours_shows_nothing_of_itself(new: New, desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    browser = new("ana")
    monkeypatch.setattr(type(desk.desk.service), "queue", fail)
    answer = browser.get("/queue")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_evidence_that_is_gone_is_said(new: New, desk: Office) -> None:
    case = desk.escalated()
    view = desk.desk.service.case(case, None)
    assert desk.store.keys is not None
    for ref in view.decision.evidence:
        desk.store.keys.destroy(TENANT, ref.sha256)
    assert view.decision.facts is not None
    desk.store.keys.destroy(TENANT, view.decision.facts.sha256)
    browser = new("ana")
    page = browser.get(f"/cases/{case}").text
    assert "Erased: its key was destroyed" in page
    for path in ("image", "panel", "pixels"):
        answer = browser.get(f"/cases/{case}/{path}")
        assert answer.status_code == 404
        assert answer.text.startswith("Erased: its key was destroyed")
        assert answer.headers["content-type"].startswith("text/plain")


def test_evidence_that_was_changed_is_warned_of(new: New, desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.media.errors import ContentCorrupt

    case = desk.escalated()

    def changed(*_: object) -> bytes:
        raise ContentCorrupt("sha256 differs")

    monkeypatch.setattr(ContentStore, "get_evidence", changed)
    page = new("ana").get(f"/cases/{case}").text
    assert "Do not rely on this page" in page


def test_pictures_are_made_anew_and_windows_are_native_pixels(tmp_path: Path) -> None:
    import io

    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from tests.support.consoles import facts
    from tests.support.mllm import encoded

    pixels = np.random.default_rng(3).integers(0, 256, (900, 1300, 3), dtype=np.uint8)
    hidden = PngInfo()
    hidden.add_text("Comment", "<script>hidden</script>")
    png = encoded(Image.fromarray(pixels), pnginfo=hidden)
    assert b"<script>" in png
    with office(tmp_path) as opened:
        opened.hire("ana")
        case = opened.take(opened.case("img-1", original=png, facts=facts(png, 1300, 900)).escalated())
        with Browser(create_app(opened.desk)) as browser, browser.running():
            browser.log_in("ana")
            preview = browser.get(f"/cases/{case}/image")
            window = browser.get(f"/cases/{case}/pixels?left=300&top=9999")
            panel = browser.get(f"/cases/{case}/panel")
            assert browser.get(f"/cases/{case}/pixels?left=-1").status_code == 422
    assert preview.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(preview.content)).size == (1024, 709)
    assert b"script" not in preview.content
    assert panel.headers["content-type"] == "image/webp"
    found = np.asarray(Image.open(io.BytesIO(window.content)))
    assert np.array_equal(found, pixels[900 - 512 :, 300 : 300 + 512])
