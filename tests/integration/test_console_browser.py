"""The console in a real browser: keys, conflicts, leases, and strangers' text that stays text."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.review import Label
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
from tests.support.consoles import ATTACK, ATTACK_URI, OTHER_TENANT, Office
from tests.support.spawning import bare_main  # noqa: F401 - a fixture

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'mediasieve[dev]'")
expect = sync_api.expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)

PAGES = ("/queue", "/recent", "/search?q=img", "/dashboard")


def test_claim_and_verdict_by_keyboard_alone(desk: Office, people: People) -> None:
    first, second = desk.escalated("img-1"), desk.escalated("img-2")
    ana = people("ana")
    page = ana.page
    page.keyboard.press("j")
    page.keyboard.press("j")
    chosen = page.evaluate("document.activeElement.dataset.case")
    page.keyboard.press("k")
    assert {chosen, page.evaluate("document.activeElement.dataset.case")} == {first, second}
    page.keyboard.press("j")
    page.keyboard.press("c")
    page.wait_for_url(f"**/cases/{chosen}")
    page.keyboard.press("n")
    page.keyboard.type("grain 1234 fits")
    page.keyboard.press("Escape")
    ana.ready()
    page.keyboard.press("3")
    other = second if chosen == first else first
    page.wait_for_url(f"**/cases/{other}?said=closed_pass")
    expect(page.get_by_role("status")).to_contain_text("closed: pass")
    closed = desk.desk.service.case(chosen, None)
    assert (closed.row.label, closed.reviews[0].rationale) == (Label.PHOTOGRAPH, "grain 1234 fits")
    assert ana.faults == []


@pytest.mark.parametrize("scripts", [True, False])
def test_enter_in_a_field_is_no_verdict(desk: Office, people: People, scripts: bool) -> None:
    case = desk.escalated()
    ana = people("ana", java_script_enabled=scripts)
    ana.page.click("#claim button")
    ana.page.wait_for_url(f"**/cases/{case}")
    for field in ("#note", "#family"):
        ana.page.fill(field, "flux")
        ana.page.press(field, "Enter")
    if scripts:
        ana.page.keyboard.press("f")
        assert ana.page.evaluate("document.activeElement.id") == "family"
    ana.page.click("#verdict button.generated")
    ana.page.wait_for_url("**?said=*")
    assert desk.desk.service.case(case, None).row.votes == 1
    (review,) = [a for a in desk.desk.service.case(case, None).history if a.kind == "reviewed"]
    assert review.actor == "ana"


def test_a_key_pressed_twice_does_not_decide_the_next_case_unseen(desk: Office, people: People) -> None:
    case = desk.escalated()
    ana = people("ana")
    ana.page.clock.install()
    ana.page.clock.pause_at(ana.page.evaluate("Date.now()") / 1000 + 3600)
    ana.page.keyboard.press("c")
    ana.page.wait_for_url(f"**/cases/{case}")
    ana.page.keyboard.press("3")
    assert ana.page.evaluate("document.querySelector('#verdict').dataset.sent") is None
    ana.page.clock.run_for(1000)
    ana.page.keyboard.press("3")
    ana.page.wait_for_url("**/queue?said=closed_pass")


def test_two_reviewers_do_not_decide_one_case(desk: Office, people: People) -> None:
    case = desk.escalated()
    ana, ben = people("ana"), people("ben")
    stale = ben.page
    expect(stale.locator(f"[data-case='{case}']")).to_be_visible()
    ana.page.keyboard.press("c")
    ana.page.wait_for_url(f"**/cases/{case}")
    stale.keyboard.press("j")
    stale.keyboard.press("c")
    expect(stale.get_by_role("alert")).to_contain_text("ana works on it until")
    ben.go(f"/cases/{case}")
    expect(stale.locator("aside")).to_contain_text("ana is looking at it")
    assert stale.locator("#verdict").count() == 0


def test_a_lease_that_ran_out_is_another_reviewers(desk: Office, people: People) -> None:
    case = desk.escalated()
    ana, ben = people("ana"), people("ben")
    ana.page.keyboard.press("c")
    ana.page.wait_for_url(f"**/cases/{case}")
    desk.clock.now += 301.0
    ben.go(f"/cases/{case}").keyboard.press("c")
    expect(ben.page.locator("#verdict")).to_be_visible()
    ana.page.fill("#note", "six <i>fingers</i>")
    ana.page.click("#verdict button.generated")
    expect(ana.page.get_by_role("heading", name="Nothing was changed")).to_be_visible()
    expect(ana.page.locator("pre")).to_have_text("six <i>fingers</i>")
    assert desk.desk.service.case(case, None).row.votes == 0
    ben.page.click("#verdict button.photograph")
    ben.page.wait_for_url("**/queue?said=closed_pass")


def test_the_page_says_when_its_lease_is_over(desk: Office, people: People) -> None:
    """By the page's own clock, which is put forward; nobody touched the page meanwhile."""
    case = desk.escalated()
    ana = people("ana")
    ana.page.clock.install()
    ana.page.keyboard.press("c")
    ana.page.wait_for_url(f"**/cases/{case}")
    expect(ana.page.locator("#lease")).to_contain_text("min")
    expect(ana.page.locator("#lease-over")).to_be_hidden()
    desk.clock.now += 301.0
    ana.page.clock.fast_forward(301_000)
    expect(ana.page.locator("#lease-over")).to_be_visible()
    expect(ana.page.locator("#verdict button.answer").first).to_be_disabled()
    ana.page.click("#lease-over button")
    expect(ana.page.locator("#verdict button.answer").first).to_be_enabled()


def test_the_lease_is_renewed_while_somebody_works(desk: Office, people: People) -> None:
    case = desk.escalated()
    ana = people("ana")
    ana.page.clock.install()
    ana.page.keyboard.press("c")
    ana.page.wait_for_url(f"**/cases/{case}")
    expect(ana.page.locator("#lease")).to_contain_text("min")
    before = lease_until(desk, case)
    desk.clock.now += 200.0
    with ana.page.expect_response("**/renew") as answered:
        ana.page.keyboard.press("g")
        ana.page.clock.fast_forward(150_000)
    assert answered.value.status == 200
    assert lease_until(desk, case) - before == pytest.approx(200.0)


def lease_until(desk: Office, case: str) -> float:
    lease = desk.desk.service.case(case, None).row.lease
    assert lease is not None
    return lease.until.timestamp()


def test_strangers_text_is_inert_everywhere(desk: Office, people: People) -> None:
    """In address, labels, detail, the model's answer, and what reviewers type; `source` takes no such characters."""
    decision = desk.case("img-1", uri=ATTACK_URI, labels={"desk": ATTACK}, answer=ATTACK, detail=ATTACK).escalated()
    case = desk.take(decision)
    ana = people("ana")
    page = ana.page
    page.keyboard.press("c")
    page.wait_for_url(f"**/cases/{case}")
    page.fill("#note", ATTACK)
    page.uncheck("#go-on")
    page.click("#verdict button.photograph")
    page.wait_for_url(f"**/cases/{case}?said=closed_pass")
    page.click("#appeal summary")
    page.fill("#appeal textarea", ATTACK)
    page.click("#appeal button")
    page.wait_for_url("**?said=appealed")
    for path in (*PAGES, f"/cases/{case}", "/search?q=" + ATTACK.replace("#", "%23").replace("&", "%26")):
        ana.go(path).wait_for_load_state("networkidle")
        assert page.title().endswith("· mediasieve")
        assert page.locator("img[src='x'], [onerror], script:not([src])").count() == 0
    ana.go(f"/cases/{case}")
    assert page.get_by_text(ATTACK).count() >= 3
    assert ana.faults == []


def test_markup_that_got_past_the_escaping_would_not_run(desk: Office, people: People) -> None:
    """The policy of the page forbids it, and forbids scripts to turn text into markup."""
    case = desk.escalated()
    ana = people("ana")
    policy = ana.page.request.get(f"{ana.url}/cases/{case}").headers["content-security-policy"]

    def injected(route: Any) -> None:
        body = route.fetch().text().replace("<main", f"{ATTACK}<style>body{{opacity:0}}</style><main")
        route.fulfill(body=body, content_type="text/html", headers={"content-security-policy": policy})

    ana.page.route(f"**/cases/{case}", injected)
    ana.go(f"/cases/{case}").wait_for_load_state("networkidle")
    assert ana.page.title().endswith("· mediasieve")
    assert ana.page.evaluate("getComputedStyle(document.body).opacity") == "1"
    assert any("Content Security Policy" in fault for fault in ana.faults)
    refused = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'ran'; } catch (e) { return e.name; } })()"
    assert ana.page.evaluate(refused) == "TypeError"


def test_another_site_can_send_no_form(desk: Office, people: People) -> None:
    case = desk.escalated()
    ana = people("ana")
    evil = f"<form method=post action='{ana.url}/claim'><input name=case_id value='{case}'><button>win</button></form>"
    ana.page.route("http://evil.test/", lambda route: route.fulfill(body=evil, content_type="text/html"))
    ana.page.goto("http://evil.test/")
    ana.page.click("button")
    ana.page.wait_for_url(f"{ana.url}/**")
    assert desk.desk.service.case(case, None).row.lease is None
    ana.go("/queue")
    expect(ana.page.get_by_role("heading", name="Queue")).to_be_visible()


def test_a_link_on_another_site_leads_to_the_case(desk: Office, people: People) -> None:
    case = desk.escalated()
    ana = people("ana")
    link = f"<a href='{ana.url}/cases/{case}'>the case</a>"
    ana.page.route("http://siem.test/", lambda route: route.fulfill(body=link, content_type="text/html"))
    ana.page.goto("http://siem.test/")
    ana.page.click("a")
    expect(ana.page.get_by_role("heading", level=1)).to_contain_text("Held for a person")


def test_tenants_see_their_own_alone(desk: Office, people: People) -> None:
    case = desk.escalated("img-1")
    sam = people("sam", tenant=OTHER_TENANT)
    expect(sam.page.get_by_text("The queue is empty.")).to_be_visible()
    sam.page.keyboard.press("c")
    expect(sam.page.get_by_role("status")).to_contain_text("nothing left for you")
    sam.go(f"/cases/{case}")
    expect(sam.page.get_by_role("heading", name="Not found")).to_be_visible()


def test_keys_can_be_turned_off(desk: Office, people: People) -> None:
    desk.escalated()
    ana = people("ana")
    ana.page.keyboard.press("?")
    ana.page.uncheck("#keys-on")
    ana.page.keyboard.press("Escape")
    ana.page.keyboard.press("j")
    assert ana.page.evaluate("document.activeElement.dataset.case ?? ''") == ""
    ana.page.reload()
    ana.page.keyboard.press("c")
    assert ana.at == "/queue"
