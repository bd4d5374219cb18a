"""Who gets in, which forms count, and whose cases they see."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.consoles import OTHER_TENANT, PASSWORD, Office, office
from tests.support.pages import Browser, New, desk_fixture, form, new_fixture  # noqa: F401 - fixtures
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from workers.console.web.app import create_app

PAGES = ("/queue", "/recent", "/search", "/search?q=img", "/dashboard", "/dashboard?hours=168")
POSTS = {
    "/claim": {},
    "/cases/{id}/verdict": {"label": "generated"},
    "/cases/{id}/skip": {"reason": "x"},
    "/cases/{id}/release": {},
    "/cases/{id}/renew": {},
    "/cases/{id}/appeal": {"reason": "x"},
    "/logout": {},
}


@pytest.mark.parametrize("path", [*PAGES, "/", "/cases/x", "/cases/x/image", "/cases/x/panel", "/cases/x/pixels"])
def test_without_a_login_there_is_nothing_but_the_login(new: New, path: str) -> None:
    answer = new().get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] in ("/queue", f"/login?next={quote(path, safe='')}")


@pytest.mark.parametrize(
    "action", ["claim", "logout", "cases/x/verdict", "cases/x/skip", "cases/x/release", "cases/x/appeal"]
)
def test_without_a_login_no_form_counts(new: New, action: str) -> None:
    answer = new().post(f"/{action}", {"csrf": "x", "label": "generated"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert new().post("/cases/x/renew", {}, accept="application/json").status_code == 401


def test_login_leads_back_to_where_one_came_from(new: New, desk: Office) -> None:
    case = desk.escalated()
    desk.hire("ana")
    browser = new()
    asked = browser.get(f"/cases/{case}?said=skipped").headers["location"]
    page = browser.get(asked).text
    answer = browser.post("/login", form(page, "/login") | {"name": "ana", "password": PASSWORD})
    assert answer.headers["location"] == f"/cases/{case}?said=skipped"


@pytest.mark.parametrize("next_", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_login_leads_to_no_other_site(new: New, desk: Office, next_: str) -> None:
    desk.hire("ana")
    browser = new()
    page = browser.get(f"/login?next={next_}").text
    answer = browser.post("/login", form(page, "/login") | {"name": "ana", "password": PASSWORD, "next": next_})
    assert answer.headers["location"] == "/queue"


def test_a_wrong_password_is_told_like_an_unknown_name_and_slows_down(new: New, desk: Office) -> None:
    desk.hire("ana")
    browser = new()
    answers = [browser.fill("/login", "/login", name=name, password="wrong" * 3) for name in ("ana", "nobody")]
    assert [a.status_code for a in answers] == [401, 401]
    assert "Name or password is wrong." in answers[0].text
    assert answers[0].text.replace("ana", "") == answers[1].text.replace("nobody", "")
    for _ in range(4):
        browser.fill("/login", "/login", name="ana", password="wrong" * 3)
    late = browser.fill("/login", "/login", name="ana", password=PASSWORD)
    assert late.status_code == 429
    assert late.headers["retry-after"] == "1"


@pytest.mark.parametrize("https", [False, True])
def test_the_session_cookie_is_out_of_reach(tmp_path: Path, https: bool) -> None:
    with office(tmp_path, https=https) as opened:
        opened.hire("ana")
        with Browser(create_app(opened.desk), "https://console.test") as browser:
            answer = browser.fill("/login", "/login", name="ana", password=PASSWORD)
            asked = browser.get("/login").headers["set-cookie"]
    ended, begun = sorted(answer.headers.get_list("set-cookie"), key=lambda cookie: "console" in cookie)
    for cookie, name in ((asked, "login"), (ended, "login"), (begun, "console")):
        assert cookie.startswith(f"__Host-mediasieve-{name}=")
        assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Max-Age=0" in ended


def test_over_plain_http_the_cookie_says_nothing_of_tls(new: New, desk: Office) -> None:
    desk.hire("ana")
    answer = new().fill("/login", "/login", name="ana", password=PASSWORD)
    cookies = answer.headers.get_list("set-cookie")
    assert all(
        "Secure" not in c and "HttpOnly" in c and "SameSite=strict" in c for c in cookies if "Max-Age=0" not in c
    )


def test_a_login_gives_another_session_and_ends_the_one_before(new: New) -> None:
    browser = new("ana")
    before = browser.client.cookies["mediasieve-console"]
    browser.log_in("ana")
    assert browser.client.cookies["mediasieve-console"] != before
    thief = new()
    thief.client.cookies.set("mediasieve-console", before)
    assert thief.get("/queue").headers["location"].startswith("/login")


def test_logging_out_ends_the_session_on_the_server(new: New, desk: Office) -> None:
    browser = new("ana")
    kept = dict(browser.client.cookies)
    assert browser.fill("/queue", "/logout").headers["location"] == "/login"
    thief = new()
    thief.client.cookies.update(kept)
    assert thief.get("/queue").headers["location"].startswith("/login")


def test_a_link_from_another_site_finds_the_session_again(new: New) -> None:
    """The browser keeps a strict cookie back when another site asks; a refresh of ours brings it."""
    answer = new().get('/search?q=a"><script>', **{"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert 'content="0;url=/search?q=a%22%3E%3Cscript%3E"' in answer.text
    assert "<script" not in answer.text


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("forged", ["", "0" * 64, "of another session"])
def test_a_form_without_this_sessions_token_counts_for_nothing(new: New, desk: Office, path: str, forged: str) -> None:
    case = desk.escalated()
    browser, other = new("ana"), new("ana")
    claim = browser.fill("/queue", "/claim")
    assert claim.status_code == 303
    token = form(browser.get(f"/cases/{case}").text, f"/cases/{case}/release")["token"]
    csrf = form(other.get("/queue").text, "/claim")["csrf"] if forged == "of another session" else forged
    answer = browser.post(path.format(id=case), POSTS[path] | {"csrf": csrf, "token": token})
    assert answer.status_code == 403
    assert "did not come from a page of this session" in answer.text
    row = desk.desk.service.case(case, None).row
    assert row.lease is not None
    assert (row.lease.reviewer, row.votes, row.skips) == ("ana", 0, 0)
    assert browser.get("/queue").status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_form_that_another_site_sends_counts_for_nothing(new: New, desk: Office, site: str) -> None:
    desk.escalated()
    browser = new("ana")
    fields = form(browser.get("/queue").text, "/claim")
    assert browser.post("/claim", fields, **{"sec-fetch-site": site}).status_code == 403
    assert browser.post("/claim", fields, **{"sec-fetch-site": "same-origin"}).status_code == 303


def test_a_login_form_of_another_browser_counts_for_nothing(new: New, desk: Office) -> None:
    desk.hire("ben")
    fields = form(new().get("/login").text, "/login")
    victim = new()
    victim.get("/login")
    assert victim.post("/login", fields | {"name": "ben", "password": PASSWORD}).status_code == 403
    assert new().post("/login", fields | {"name": "ben", "password": PASSWORD}).status_code == 403


def test_another_tenants_cases_do_not_exist(new: New, desk: Office) -> None:
    mine, theirs = desk.escalated(), desk.escalated("secret-img", OTHER_TENANT)
    blocked = desk.blocked("secret-block", OTHER_TENANT)
    browser = new("ana")
    fields = form(browser.get("/queue").text, "/claim")
    for path in PAGES:
        assert "secret" not in browser.get(path).text
    assert "secret" not in browser.get("/search?q=secret-img").text.replace('value="secret-img"', "")
    assert "secret" not in browser.get(f"/search?q={theirs}").text
    for path in ("", "/image", "/panel", "/pixels"):
        answer = browser.get(f"/cases/{theirs}{path}")
        assert answer.status_code == 404
        assert "secret" not in answer.text
        assert answer.text == browser.get(f"/cases/{'0' * 36}{path}").text.replace("0" * 36, theirs)
    assert browser.post("/claim", fields | {"case_id": theirs}).status_code == 404
    for path, values in POSTS.items():
        if "{id}" in path:
            answer = browser.post(path.format(id=theirs), fields | values)
            assert answer.status_code == 404, path
    assert browser.post(f"/cases/{blocked}/appeal", fields | {"reason": "x"}).status_code == 404
    assert browser.get(f"/cases/{mine}").status_code == 200
    assert new("sam").get(f"/cases/{theirs}").status_code == 200


def test_a_claim_counts_under_the_address_of_its_own_case_alone(new: New, desk: Office) -> None:
    first, second = desk.escalated(), desk.escalated("img-2")
    browser = new("ana")
    browser.fill("/queue", "/claim", case_id=first)
    token = form(browser.get(f"/cases/{first}").text, f"/cases/{first}/release")["token"]
    fields = form(browser.get("/queue").text, "/claim") | {"token": token}
    theirs = desk.escalated("img-3", OTHER_TENANT)
    for action in ("renew", "skip", "release", "verdict"):
        answer = browser.post(f"/cases/{second}/{action}", fields | {"label": "photograph", "reason": "x"})
        assert answer.status_code == 409
        assert "another case" in answer.text
    assert browser.post(f"/cases/{theirs}/verdict", fields | {"label": "photograph"}).status_code == 404
    row = desk.desk.service.case(first, None).row
    assert row.lease is not None
    assert (row.votes, row.skips) == (0, 0)


def test_who_only_reads_sees_no_form_and_sends_none(new: New, desk: Office) -> None:
    case = desk.escalated()
    browser = new("rob")
    page = browser.get(f"/cases/{case}").text
    assert "/claim" not in page
    assert "/verdict" not in page
    csrf = form(page, "/logout")
    for path, values in POSTS.items():
        if path != "/logout":
            answer = browser.post(path.format(id=case), csrf | values)
            assert answer.status_code == 403
            assert "needs the role review" in answer.text


def test_a_disabled_account_is_out_at_once(new: New, desk: Office) -> None:
    browser = new("ana")
    assert browser.get("/queue").status_code == 200
    desk.desk.accounts.disable("ana")
    assert browser.get("/queue").headers["location"].startswith("/login")
