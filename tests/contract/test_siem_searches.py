"""Every field that a search of docs/siem.md names is in an event of the store that it searches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import poisson

from schemas import generate
from schemas.ocsf import encode_finding
from schemas.siem import ecs_document
from tests.support.findings import FINDINGS, golden
from tests.support.searches import LANGUAGES, PAGE, Search, searches

SIEM = generate.ROOT.parent / "deploy/siem"
LETTER = json.loads((generate.ROOT / "examples/valid/dead_letter/full.json").read_bytes())
TITLES = [
    "Block rate by source",
    "Escalations waiting",
    "Dead letters by cause",
    "Bundle change impact",
    "One media's whole story",
    "Alert: the fleet is silently passing",
]
SEARCHES = searches()


def leaves(node: Any, path: str = "", mark: str = "") -> Iterator[str]:
    """Paths as a SIEM names them; `mark` stands behind a list, as Splunk's `{}`."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else key, mark)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value, path + mark, mark)
    else:
        yield path


def columns(name: str) -> set[str]:
    table = json.loads((SIEM / f"sentinel/table-{name}.json").read_bytes())["properties"]["schema"]
    return {column["name"] for column in table["columns"]}


def known_fields(search: Search) -> set[str]:
    if search.language == "kql":
        return columns("deadletters" if search.dead_letters else "findings")
    if search.language == "spl":
        events = [LETTER] if search.dead_letters else [json.loads(path.read_bytes()) for path in FINDINGS]
        return {name for event in events for name in leaves(event, mark="{}")}
    documents = (
        [{**LETTER, "@timestamp": ""}] if search.dead_letters else [ecs_document(golden(p.stem)) for p in FINDINGS]
    )
    return {name for document in documents for name in leaves(document)}


def label(search: Search) -> str:
    return f"{search.title}-{search.language}"


def test_all_searches_are_there_in_all_languages() -> None:
    assert [(s.title, s.language) for s in SEARCHES] == [(title, lang) for title in TITLES for lang in LANGUAGES]


@pytest.mark.parametrize("search", SEARCHES, ids=label)
def test_every_field_exists(search: Search) -> None:
    fields = search.fields()
    assert len(fields) >= 3
    assert fields <= known_fields(search)


@pytest.mark.parametrize("search", SEARCHES, ids=label)
def test_duplicates_are_dropped_where_the_store_keeps_them(search: Search) -> None:
    if search.language == "spl":
        assert ("dedup topic, partition, offset" if search.dead_letters else "dedup metadata.uid") in search.text
    if search.language == "kql":
        key = "Topic, Partition, Offset" if search.dead_letters else "EventUid"
        assert f"summarize arg_max(TimeGenerated, *) by {key}" in search.text


def test_values_that_are_compared_with_exist() -> None:
    codes = {json.loads(path.read_bytes())["metadata"]["event_code"] for path in FINDINGS}
    compared = {
        value
        for search in SEARCHES
        for value in re.findall(r"(?:event_code|EventCode|event\.code) ?[!=]=? ?\"([^\"]+)\"", search.text)
    }
    assert {"block", "escalate", "pass.released", "closed"} <= compared <= codes
    block = json.loads(FINDINGS[0].read_bytes())
    assert (block["activity_name"], block["disposition"]) == ("Create", "Blocked")


@pytest.mark.parametrize(
    ("language", "text", "unknown"),
    [
        ("spl", "index=mediasieve\n| stats count BY metadata.uuid", {"metadata.uuid"}),
        ("kql", 'MediasieveFindings_CL\n| where Dispositon == "Blocked"\n', {"Dispositon"}),
        ("esql", "FROM mediasieve-decisions-*\n| KEEP mediasieve.bundel", {"mediasieve.bundel"}),
    ],
)
def test_a_misspelt_field_would_be_noticed(language: str, text: str, unknown: set[str]) -> None:
    search = Search("", language, text)
    assert search.fields() - known_fields(search) == unknown


def test_the_false_alarms_of_the_rule_are_as_stated() -> None:
    chance = float(poisson.cdf(14, 30))
    assert f"with a probability of {chance:.4f} (Poisson)" in PAGE.read_text()
    assert f"in\n{round(1 / chance, -2):,.0f} hours" in PAGE.read_text()


@pytest.mark.parametrize(
    ("released_now", "fires"),
    [(900, False), (950, False), (960, True), (1000, True)],
)
def test_the_rule_fires_when_less_than_half_of_the_usual_is_looked_at(released_now: int, fires: bool) -> None:
    """The arithmetic of the three alert rules, on a fleet that used to release 90 % and decides 1,000 an hour."""
    before = {"pass.released": 90_000, "block": 2_000, "escalate": 3_000, "pass.low_risk": 5_000}
    decided_before, decided_now = sum(before.values()), 1_000
    examined_before = decided_before - before["pass.released"]
    decided, examined = decided_before + decided_now, examined_before + decided_now - released_now
    examined_now = decided_now - released_now
    expected_now = decided_now * (examined - examined_now) / (decided - decided_now)
    assert (expected_now >= 30 and examined_now < expected_now / 2) == fires


def test_the_page_names_every_file_of_the_connectors() -> None:
    text = PAGE.read_text()
    files = [path for path in sorted(SIEM.rglob("*")) if path.is_file()]
    assert files
    for path in files:
        own = f"deploy/siem/{path.relative_to(SIEM)}"
        assert own in text or f"deploy/siem/{path.parent.relative_to(SIEM)}/`" in text, own


def test_the_table_of_events_is_what_the_code_does() -> None:
    rows = re.findall(
        r"^\| .* \| (Create|Update|Close) \| `([\w.<>]+)` \| (\w+), (\w+)", PAGE.read_text(), re.MULTILINE
    )
    told = {(activity, code, action, disposition) for activity, code, action, disposition in rows}
    done = set()
    for path in FINDINGS:
        found = json.loads(path.read_bytes())
        if found["activity_name"] != "Update":
            code = found["metadata"]["event_code"]
            done.add((found["activity_name"], code, found["action"], found["disposition"]))
    assert {row for row in told if row[0] != "Update"} >= done
    assert {row for row in told if row[0] == "Create"} == {row for row in done if row[0] == "Create"}


def test_nothing_that_is_searched_lies_behind_what_splunk_extracts() -> None:
    """`unmapped` is last, so that the first 5,000 characters hold what the searches name."""
    for path in FINDINGS:
        assert list(json.loads(_bytes(path)))[-1] == "unmapped"
        assert _bytes(path).index(b'"unmapped"') < 5_000


def _bytes(path: Path) -> bytes:
    return encode_finding(golden(path.stem))
