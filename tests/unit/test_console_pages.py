"""What reviewers do on the pages: claim, answer, skip, appeal, and what happens when they are late."""

from __future__ import annotations

from schemas.review import Label
from tests.support.consoles import OTHER_TENANT, Office
from tests.support.pages import New, desk_fixture, form, new_fixture  # noqa: F401 - fixtures
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from workers.console.web.notices import NOTICES


def test_a_verdict_closes_the_case_and_the_next_one_is_claimed(new: New, desk: Office) -> None:
    first, second = desk.escalated(), desk.escalated("img-2")
    browser = new("ana")
    browser.fill("/queue", "/claim", case_id=first)
    answer = browser.fill(
        f"/cases/{first}", f"/cases/{first}/verdict", label="photograph", rationale="EXIF and grain fit", go_on="1"
    )
    assert answer.headers["location"] == f"/cases/{second}?said=closed_pass"
    page = browser.get(answer.headers["location"]).text
    assert NOTICES["closed_pass"] in page
    assert "claimed by you" in page
    closed = desk.desk.service.case(first, None)
    assert closed.row.label is Label.PHOTOGRAPH
    assert closed.reviews[0].rationale == "EXIF and grain fit"
    again = browser.fill(f"/cases/{second}", f"/cases/{second}/verdict", label="undecidable")
    assert again.headers["location"].startswith(f"/cases/{second}?said=")


def test_two_reviewers_get_two_answers_and_four_eyes_are_told(new: New, desk: Office) -> None:
    case = desk.escalated()
    ana, ben = new("ana"), new("ben")
    ana.fill("/queue", "/claim", case_id=case)
    assert "with ana" in ben.get("/queue").text
    refused = ben.post("/claim", form(ben.get("/queue").text, "/claim") | {"case_id": case})
    assert refused.status_code == 409
    assert "ana works on it until" in refused.text
    answer = ana.fill(f"/cases/{case}", f"/cases/{case}/verdict", label="generated", family="flux", rationale="hands")
    assert answer.headers["location"].endswith("said=waits")
    page = ben.get(f"/cases/{case}").text
    assert "hands" not in page
    assert "flux" not in page
    ben.fill("/queue", "/claim", case_id=case)
    answer = ben.fill(f"/cases/{case}", f"/cases/{case}/verdict", label="generated")
    assert answer.headers["location"].endswith("said=closed_block")
    assert "generated: flux" in ana.get(f"/cases/{case}").text
    other = desk.escalated("img-2")
    ana.fill("/queue", "/claim", case_id=other)
    assert '<option value="flux">' in ana.get(f"/cases/{other}").text
    elsewhere = desk.escalated("img-3", OTHER_TENANT)
    sam = new("sam")
    sam.fill("/queue", "/claim", case_id=elsewhere)
    page = sam.get(f"/cases/{elsewhere}").text
    assert "/verdict" in page
    assert "flux" not in page


def test_a_stale_claim_is_refused_and_the_note_is_not_lost(new: New, desk: Office) -> None:
    case = desk.escalated()
    ana, ben = new("ana"), new("ben")
    ana.fill("/queue", "/claim", case_id=case)
    page = ana.get(f"/cases/{case}").text
    desk.clock.now += 301.0
    assert (
        ana.post(f"/cases/{case}/renew", form(page, f"/cases/{case}/renew"), accept="application/json").status_code
        == 409
    )
    ben.fill("/queue", "/claim", case_id=case)
    late = ana.post(
        f"/cases/{case}/verdict",
        form(page, f"/cases/{case}/verdict") | {"label": "generated", "rationale": "six <b>fingers"},
    )
    assert late.status_code == 409
    assert "six &lt;b&gt;fingers" in late.text
    assert f"/cases/{case}" in late.text
    row = desk.desk.service.case(case, None).row
    assert (row.votes, row.lease.reviewer if row.lease else None) == (0, "ben")


def test_a_lease_is_renewed(new: New, desk: Office) -> None:
    case = desk.escalated()
    browser = new("ana")
    browser.fill("/queue", "/claim", case_id=case)
    fields = form(browser.get(f"/cases/{case}").text, f"/cases/{case}/renew")
    desk.clock.now += 200.0
    answer = browser.post(f"/cases/{case}/renew", fields, accept="application/json")
    assert answer.status_code == 200
    desk.clock.now += 200.0
    assert "claimed by you" in browser.get(f"/cases/{case}").text


def test_the_same_person_elsewhere_takes_the_case_over(new: New, desk: Office) -> None:
    case = desk.escalated()
    desk_pc, phone = new("ana"), new("ana")
    desk_pc.fill("/queue", "/claim", case_id=case)
    page = phone.get(f"/cases/{case}").text
    assert "claimed by you in another session" in page
    assert "/verdict" not in page
    phone.fill(f"/cases/{case}", "/claim")
    assert phone.fill(f"/cases/{case}", f"/cases/{case}/verdict", label="photograph").status_code == 303


def test_skip_wants_a_reason_and_gives_the_case_to_others(new: New, desk: Office) -> None:
    case = desk.escalated()
    browser = new("ana")
    browser.fill("/queue", "/claim", case_id=case)
    assert browser.fill(f"/cases/{case}", f"/cases/{case}/skip", reason="  ").status_code == 422
    assert (
        browser.fill(f"/cases/{case}", f"/cases/{case}/skip", reason="distressing").headers["location"]
        == "/queue?said=skipped"
    )
    assert browser.fill("/queue", "/claim").headers["location"] == "/queue?said=nothing_left"
    assert new("ben").fill("/queue", "/claim").headers["location"] == f"/cases/{case}"


def test_a_block_is_appealed_and_opened_for_others(new: New, desk: Office) -> None:
    case = desk.blocked()
    browser = new("ana")
    assert case in browser.get("/search?q=img-9").text
    assert browser.fill(f"/cases/{case}", f"/cases/{case}/appeal", reason=" ").status_code == 422
    answer = browser.fill(f"/cases/{case}", f"/cases/{case}/appeal", reason="the producer shows the negative")
    opened = answer.headers["location"].partition("?")[0]
    assert "appealed" in browser.get("/queue").text
    assert "the producer shows the negative" in browser.get(opened).text
    assert browser.fill(opened, "/claim").status_code == 409


def test_a_note_that_is_too_long_is_refused_with_its_text(new: New, desk: Office) -> None:
    case = desk.escalated()
    browser = new("ana")
    browser.fill("/queue", "/claim", case_id=case)
    answer = browser.fill(f"/cases/{case}", f"/cases/{case}/verdict", label="photograph", rationale="y" * 1025)
    assert answer.status_code == 422
    assert "rationale" in answer.text
    assert "y" * 1025 in answer.text
    camera = {"label": "photograph", "rationale": "six fingers", "family": "flux"}
    answer = browser.fill(f"/cases/{case}", f"/cases/{case}/verdict", **camera)
    assert answer.status_code == 422
    assert "only what is generated or AI-processed has a generator" in answer.text
    assert "<pre>six fingers\nflux</pre>" in answer.text
    assert browser.fill(f"/cases/{case}", f"/cases/{case}/verdict", label="photograph", family="a b").status_code == 422
    assert browser.fill(f"/cases/{case}", f"/cases/{case}/verdict", label="fake").status_code == 422
    assert desk.desk.service.case(case, None).row.votes == 0


def test_the_dashboard_counts_the_tenants_own(new: New, desk: Office) -> None:
    desk.escalated()
    desk.blocked()
    desk.escalated("elsewhere", OTHER_TENANT)
    page = new("ana").get("/dashboard").text
    assert "2 media since" in page
    assert "MLLM: 2 (100 %)" in page
    assert "not connected to Kafka" in page
