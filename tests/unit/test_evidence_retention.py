from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.evidence.retention import Period, RetentionPolicy, RetentionPolicyError, due_at
from schemas.decision import Outcome, Risk
from tests.support.evidence import POLICY, T0, Desk, archived_records

DEFAULT = '[default]\nlow_risk = "30d"\ncleared = "30d"\nescalate = "52w"\nblock = "6y"\n'


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("30d", "2026-01-31", "2026-03-02"),
        ("2w", "2026-01-31", "2026-02-14"),
        ("6y", "2026-01-31", "2032-01-31"),
        ("1y", "2028-02-29", "2029-03-01"),
        ("4y", "2028-02-29", "2032-02-29"),
        ("99999d", "9990-01-01", "9999-12-31"),
        ("99999y", "2026-05-06", "9999-05-06"),
    ],
)
def test_periods_are_calendar_years_and_days(text: str, start: str, end: str) -> None:
    moment = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert Period.parse(text).after(moment).date().isoformat() == end


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1m", "1.5y", "30 d", "100000d"])
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ValueError, match="such as 30d, 12w or 6y"):
        Period.parse(text)


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml, js = tmp_path / "retention.toml", tmp_path / "retention.json"
    toml.write_text(f'version = "1"\n{DEFAULT}[tenant.acme]\nblock = "10y"\n')
    policy = RetentionPolicy.load(toml)
    js.write_text(policy.model_dump_json())
    assert RetentionPolicy.load(js) == policy
    assert policy.tenant["acme"].block == Period(years=10)
    assert policy.tenant["acme"].escalate is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f'version = "1"\n{DEFAULT}'.replace('block = "6y"\n', ""), "default.block"),
        (f'version = "1"\n{DEFAULT}'.replace("6y", "six years"), "default.block.*six years"),
        (f'version = "1"\n{DEFAULT}'.replace('"6y"', "6"), "default.block.*such as"),
        (f'version = "1"\n{DEFAULT}dead_letter = "1d"\n', "default.dead_letter"),
        (f'version = "1"\n{DEFAULT}[tenant."a/b"]\nblock = "1d"\n', "tenant.a/b"),
        (f'version = "1"\n{DEFAULT}[tenant.acme]\nblok = "1d"\n', "tenant.acme.blok"),
        (DEFAULT, "version"),
        ("version = ", "retention.toml"),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "retention.toml"
    path.write_text(text)
    with pytest.raises(RetentionPolicyError, match=rf"(?s)retention\.toml.*{named}|{named}"):
        RetentionPolicy.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RetentionPolicyError, match=r"gone\.toml"):
        RetentionPolicy.load(tmp_path / "gone.toml")


def test_each_kind_of_decision_has_its_period_and_a_tenant_its_own() -> None:
    desk = Desk()
    kinds = [
        (Outcome.PASS, Risk.LOW_RISK, "acme", "30d"),
        (Outcome.PASS, Risk.CLEARED, "acme", "60d"),
        (Outcome.ESCALATE, None, "acme", "1y"),
        (Outcome.BLOCK, None, "acme", "6y"),
        (Outcome.BLOCK, None, "short", "7d"),
        (Outcome.ESCALATE, None, "short", "1y"),
    ]
    for number, (outcome, risk, tenant, period) in enumerate(kinds):
        made = desk.decide(f"m{number}", outcome, risk=risk, tenant=tenant)
        (record,) = archived_records(desk, made)
        assert str(POLICY.period(record.tenant, record.kind)) == period
    with pytest.raises(ValueError, match=r"released.*expected one of low_risk"):
        POLICY.period("acme", "released")


def test_a_decision_is_due_when_the_last_of_its_records_is() -> None:
    desk = Desk()
    made = desk.decide(outcome=Outcome.ESCALATE)
    desk.decide(outcome=Outcome.BLOCK, sequence=1, at=T0 + timedelta(days=3))
    records = archived_records(desk, made)
    assert [r.sequence for r in records] == [0, 1]
    assert due_at(POLICY, records) == T0.replace(year=2106, day=4)
    desk.after(days=400)
    assert desk.apply() == []
    assert all(desk.readable(made).values())


def test_the_written_form_of_a_policy_is_what_was_read() -> None:
    assert json.loads(POLICY.model_dump_json())["default"]["block"] == "6y"


def test_records_that_are_not_due_by_their_names_are_not_read() -> None:
    desk = Desk()
    blocked = desk.decide("m1")
    passed = desk.decide("m2", Outcome.PASS)
    (record,) = archived_records(desk, blocked)
    desk.store.objects.replace(f"archive/by-decision/{record.place}.json", b"nobody may look")
    desk.after(days=31)
    assert [a.plan.records[0].decision_uid for a in desk.apply()] == [passed.decision_uid]
