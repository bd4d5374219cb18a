"""How the console's pages look and can be used: pictures, marks, contrast, phones, themes, no scripts."""

from __future__ import annotations

import re

import pytest

from tests.support.browsing import (  # noqa: F401 - fixtures
    BROWSER,
    CONTRASTS,
    NO_BROWSER,
    People,
    Person,
    browser_fixture,
    office_fixture,
    people_fixture,
    person,
)
from tests.support.consoles import Office
from tests.support.explaining import TENANT
from tests.support.spawning import bare_main  # noqa: F401 - a fixture

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'mediasieve[dev]'")
expect = sync_api.expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)

PAGES = ("/queue", "/recent", "/search?q=img", "/dashboard")


def test_pictures_are_blurred_until_asked_and_shown_in_native_pixels(desk: Office, people: People) -> None:
    case = desk.escalated()
    ana = people("ana")
    page = ana.go(f"/cases/{case}")
    image = page.locator("#image img")
    expect(image).to_have_css("filter", re.compile(r"blur\(30px\)"))
    page.keyboard.press("b")
    expect(image).not_to_have_css("filter", re.compile("blur"))
    page.keyboard.press("g")
    expect(image).to_have_css("filter", re.compile(r"grayscale\(1\)"))
    page.keyboard.press("z")
    window = page.locator("#pixels img")
    expect(window).to_have_js_property("naturalWidth", 512)
    expect(window).to_have_css("image-rendering", "pixelated")
    expect(page.locator("#zoom-at")).to_have_text("2x, from 0, 0 px")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    expect(page.locator("#zoom-at")).to_have_text("4x, from 128, 0 px")
    page.reload()
    expect(page.locator("#image img")).to_have_css("filter", re.compile(r"blur\(30px\).*grayscale\(1\)"))
    assert ana.faults == []


def test_peaks_and_citations_are_shown_on_the_pictures(desk: Office, people: People) -> None:
    case = desk.escalated(answer="log_peak_max_1_16 says it")
    ana = people("ana")
    page = ana.go(f"/cases/{case}")
    page.keyboard.press("j")
    expect(page.locator("#panel .on")).to_have_count(1)
    expect(page.locator("#panel .peak.on circle").first).to_be_attached()
    cited = page.locator("button.mark:has(.cited)").first
    cited.click()
    expect(page.locator("#panel .cite.on")).to_have_count(1)
    expect(page.locator("#panel .peak.on")).to_have_count(1)
    cited.click()
    expect(page.locator(".over .on")).to_have_count(0)
    page.locator("pre mark").first.click()
    expect(page.locator("button.mark[aria-pressed=true]")).to_have_attribute("data-mark", "1")
    page.keyboard.press("m")
    expect(page.locator("#panel .over")).to_be_hidden()


def test_a_picture_that_is_gone_says_so(desk: Office, people: People) -> None:
    case = desk.escalated()
    view = desk.desk.service.case(case, None)
    assert desk.store.keys is not None
    assert view.decision.facts is not None
    desk.store.keys.destroy(TENANT, view.decision.facts.sha256)
    page = people("ana").go(f"/cases/{case}")
    expect(page.locator("#image")).to_contain_text("Erased: its key was destroyed")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(desk: Office, people: People, scheme: str) -> None:
    case, blocked = desk.escalated(), desk.blocked()
    ana = people("ana", color_scheme=scheme)
    ana.page.keyboard.press("c")
    ana.page.wait_for_url(f"**/cases/{case}")
    for path in (*PAGES, f"/cases/{case}", f"/cases/{blocked}", "/cases/none", "/queue?said=nothing_left"):
        ana.go(path)
        texts = ana.page.evaluate(CONTRASTS)
        assert len(texts) >= 5
        assert [text for text in texts if text[0] < 4.5] == [], path
    ana.page.keyboard.press("?")
    assert [text for text in ana.page.evaluate(CONTRASTS) if text[0] < 4.5] == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_everything_without_scrolling_sideways(desk: Office, people: People, width: int) -> None:
    uri = "https://media.example.org/" + "very-long-name" * 40
    case, blocked = desk.escalated(uri=uri), desk.blocked()
    phone = {"viewport": {"width": width, "height": 800}, "has_touch": True, "is_mobile": True}
    ana = people("ana", **phone)
    ana.page.locator("#claim button").tap()
    ana.page.wait_for_url(f"**/cases/{case}")
    for path in (*PAGES, f"/cases/{case}", f"/cases/{blocked}"):
        ana.go(path)
        assert ana.page.evaluate("document.documentElement.scrollWidth") <= width, path
    ana.go(f"/cases/{case}")
    for button in ana.page.locator("#verdict button.answer").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert 0 <= box["y"] <= 800 - box["height"]
    ana.page.locator("#verdict button.undecidable").tap()
    ana.page.wait_for_url("**?said=*")


def test_the_theme_can_be_chosen(desk: Office, people: People) -> None:
    ana = people("ana", color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    assert ana.page.evaluate(colour) == "rgb(255, 255, 255)"
    ana.page.click("#theme")
    ana.page.click("#theme")
    expect(ana.page.locator("#theme")).to_have_text("Theme: dark")
    assert ana.page.evaluate(colour) == "rgb(18, 22, 27)"
    ana.page.reload()
    assert ana.page.evaluate(colour) == "rgb(18, 22, 27)"


def test_the_pages_work_without_scripts(desk: Office, people: People) -> None:
    case = desk.escalated()
    ana = people("ana", java_script_enabled=False)
    ana.page.click("#claim button")
    ana.page.wait_for_url(f"**/cases/{case}")
    ana.page.check("#show")
    expect(ana.page.locator("#image img")).not_to_have_css("filter", re.compile("blur"))
    ana.page.click("#verdict button.photograph")
    ana.page.wait_for_url("**/queue?said=closed_pass")
