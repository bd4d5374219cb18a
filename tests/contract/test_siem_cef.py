"""OCSF -> CEF, read back by a reader of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas import generate
from schemas.ocsf import DetectionFinding, decode_finding
from schemas.ocsf.numbers import Severity
from schemas.siem import cef_line
from schemas.siem.cef import MAX_LENGTH
from tests.support.cef_reader import read_cef
from tests.support.findings import FINDINGS, golden

GOLDEN = generate.ROOT / "examples/siem/cef"


def with_message(message: str) -> DetectionFinding:
    return golden("block").model_copy(update={"message": message})


def with_title(title: str) -> DetectionFinding:
    found = golden("block")
    return found.model_copy(update={"finding_info": found.finding_info.model_copy(update={"title": title})})


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_the_golden_lines(path: Path) -> None:
    line = (GOLDEN / f"{path.stem}.cef").read_text(encoding="utf-8")
    assert line == cef_line(golden(path.stem)) + "\n"
    event, found = read_cef(line.rstrip("\n")), golden(path.stem)
    assert event.header["version"] == "0"
    assert event.header["class_id"] == found.metadata.event_code
    assert event.header["name"] == found.finding_info.title
    assert event.extension["externalId"] == str(found.metadata.uid)
    assert event.extension["rt"] == str(found.time)
    assert event.extension["cs1"] == str(found.finding_info.uid)
    assert event.extension["request"] == found.evidences[0].url.url_string


def test_all_of_a_block() -> None:
    event = read_cef(cef_line(golden("block")))
    assert event.header == {
        "version": "0",
        "vendor": "mediasieve",
        "product": "mediasieve",
        "product_version": golden("block").metadata.product.version,
        "class_id": "block",
        "name": "Synthetic media blocked",
        "severity": "8",
    }
    panel, trace = "60303ae22b998861bce3b28f33eec1be", "fd61a03af4f77d870fc21e05e7e80678"
    assert event.extension["cs5"].startswith(f"spectral_panel:{panel}")
    assert f",mllm_trace:{trace}" in event.extension["cs5"]
    short = {key: value for key, value in event.extension.items() if key not in ("cs5", "msg", "request")}
    assert short == {
        "rt": "1769860803123",
        "externalId": "b208a3c2-32ac-5957-84ee-3e8f950d99e2",
        "act": "Blocked",
        "outcome": "Denied",
        "cat": "Create",
        "reason": "synthetic_confirmed",
        "fname": "img-20260131-0042",
        "fileHash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "fileType": "image/jpeg",
        "fsize": "482133",
        "sourceServiceName": "upload-api",
        "cn1": "94",
        "cn1Label": "riskScore",
        "cs1": "60390219-d96b-5ace-9119-e28ed6212a62",
        "cs1Label": "decisionUid",
        "cs2": "first-1.0/2026.1",
        "cs2Label": "bundleAndPolicy",
        "cs3": "outcome:block,stage:mllm,source:upload-api",
        "cs3Label": "labels",
        "cs4": "news-desk/img-20260131-0042",
        "cs4Label": "media",
        "cs5Label": "evidence",
    }


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ("a|b", "msg=a|b "),
        ("a=b", "msg=a\\=b "),
        ("a\\b", "msg=a\\\\b "),
        ("a\nb\r\nc", "msg=a\\nb\\r\\nc "),
        ("a\\=b\\n", "msg=a\\\\\\=b\\\\n "),
        (" rt=0 act=Allowed ", "msg= rt\\=0 act\\=Allowed  "),
        ("naïve 図 🖼", "msg=naïve 図 🖼 "),
        ("tab\there\x00nul\x1b[31m\u2028line", "msg=tab here nul [31m line "),
    ],
)
def test_a_value_is_escaped_and_read_back(message: str, written: str) -> None:
    line = cef_line(with_message(message))
    assert written in line
    control = {ord(char): " " for char in "\t\x00\x1b\u2028"}
    assert read_cef(line).extension["msg"] == message.translate(control)


@pytest.mark.parametrize(
    ("title", "written"),
    [("a|b", "|a\\|b|8|"), ("a\\b", "|a\\\\b|8|"), ("a\\|b", "|a\\\\\\|b|8|"), ("a=b", "|a=b|8|"), ("a\nb", "|a b|8|")],
)
def test_a_header_field_is_escaped_and_read_back(title: str, written: str) -> None:
    line = cef_line(with_title(title))
    assert written in line
    assert read_cef(line).header["name"] == title.replace("\n", " ")


@pytest.mark.parametrize("unit", ["x", "=", "\\", "\n", "|", "é", "🖼", "a=\\\n|"])
def test_64_kb_of_text_are_cut_at_the_documented_length(unit: str) -> None:
    long = unit * (65_536 // len(unit))
    event = read_cef(cef_line(with_message(long)))
    assert event.extension["msg"] == long[:1023]
    assert event.extension["request"] == golden("block").evidences[0].url.url_string
    titled = read_cef(cef_line(with_title(long)))
    assert titled.header["name"] == long[:512].replace("\n", " ")


def test_a_label_goes_with_each_custom_field_and_nothing_is_empty() -> None:
    for path in FINDINGS:
        extension = read_cef(cef_line(golden(path.stem))).extension
        assert all(extension.values())
        assert {key for key in extension if key[:2] in ("cs", "cn") and not key.endswith("Label")} == {
            key.removesuffix("Label") for key in extension if key.endswith("Label")
        }
        assert all(len(value) <= MAX_LENGTH.get(key, 20) for key, value in extension.items())


DOCUMENTED = {
    "act": 63,
    "externalId": 40,
    "fileHash": 255,
    "outcome": 63,
    **dict.fromkeys(("cs1", "cs2", "cs3", "cs4", "cs5", "cs6"), 4000),
}
"""Of the extension dictionary in "Implementing ArcSight Common Event Format", version 25; the others have 1,023."""


def test_the_lengths_are_those_of_the_dictionary() -> None:
    assert {key: DOCUMENTED.get(key, 1023) for key in MAX_LENGTH} == MAX_LENGTH
    assert DOCUMENTED.keys() <= MAX_LENGTH.keys()


def test_severities_rise_and_fall_in_the_right_band() -> None:
    low, medium, high = range(4), range(4, 7), range(7, 9)
    bands = {Severity.INFORMATIONAL: low, Severity.LOW: low, Severity.MEDIUM: medium, Severity.HIGH: high}
    found = [
        int(read_cef(cef_line(golden("block").model_copy(update={"severity_id": s}))).header["severity"]) for s in bands
    ]
    assert all(number in band for number, band in zip(found, bands.values(), strict=True))
    assert found == sorted(set(found))


@pytest.mark.parametrize("line", ["CEF:0|a|b", "LEEF:0|", "CEF:0|a|b|c|d|e|f|x=1\nCEF:0", "CEF:0|a|b|c|d|e|f|x=\\q"])
def test_the_reader_would_notice_a_broken_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"no CEF line|ends too early|unknown escape"):
        read_cef(line)


def test_a_finding_of_the_first_release_has_a_line() -> None:
    old = generate.ROOT / "examples/previous/1.0/valid/detection_finding"
    paths = sorted(old.glob("*.json"))
    assert paths
    for path in paths:
        event = read_cef(cef_line(decode_finding(path.read_bytes())))
        assert event.header["class_id"] == "200401"
