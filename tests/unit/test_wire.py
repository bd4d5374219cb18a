from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from schemas.deadletter import RejectCode
from schemas.media import MAX_EXTENSION_DEPTH, MediaReference
from schemas.wire import MAX_DEPTH, UnknownMajorVersion, WireError, decode, encode, parse_json


def refusal(value: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(MediaReference, value)
    return caught.value


@pytest.mark.parametrize(
    ("value", "code", "detail"),
    [
        (b"", RejectCode.TRUNCATED_JSON, "character 0 of 0"),
        (b"   ", RejectCode.TRUNCATED_JSON, "character"),
        (b'{"uri": "file:', RejectCode.TRUNCATED_JSON, "Unterminated string"),
        (b'{"uri"', RejectCode.TRUNCATED_JSON, "':'"),
        (b'{"uri": tru', RejectCode.TRUNCATED_JSON, "character 8"),
        (b'{"x": 1.', RejectCode.TRUNCATED_JSON, "character"),
        (b'{"x": 2.5e-', RejectCode.TRUNCATED_JSON, "character"),
        (b'{"x": "\\u00e', RejectCode.TRUNCATED_JSON, "escape"),
        (b'{"x": "caf\xc3', RejectCode.TRUNCATED_JSON, "byte 10"),
        (b'{"x": "caf\xe9"}', RejectCode.NOT_UTF8, "byte 10"),
        (b"\xff\xfe{\x00}\x00", RejectCode.NOT_UTF8, "send JSON as UTF-8"),
        (b"\xef\xbb\xbf{}", RejectCode.MALFORMED_JSON, "character 0"),
        (b"{'uri': 1}", RejectCode.MALFORMED_JSON, "double quotes"),
        (b'{"x": nope}', RejectCode.MALFORMED_JSON, "character 6"),
        (b'{"x": \\u00e', RejectCode.MALFORMED_JSON, "character 6"),
        (b'{"x": "\\u00zz"}', RejectCode.MALFORMED_JSON, "escape"),
        (b'{"uri": "file:x"} {}', RejectCode.MALFORMED_JSON, "Extra data"),
        (b'{"x": "a\nb"}', RejectCode.MALFORMED_JSON, "control character"),
        (b'{"x": 18446744073709551616}', RejectCode.MALFORMED_JSON, "64 bits"),
        (b'{"x": -9223372036854775809}', RejectCode.MALFORMED_JSON, "64 bits"),
        (b'{"x": ' + b"9" * 5000 + b"}", RejectCode.MALFORMED_JSON, "64 bits"),
        (b'{"x": "\\ud83d"}', RejectCode.MALFORMED_JSON, "surrogate"),
        (b'{"\\udc00": 1}', RejectCode.MALFORMED_JSON, "surrogate"),
        (b'{"x": NaN}', RejectCode.NON_FINITE_NUMBER, "NaN"),
        (b'{"x": -Infinity}', RejectCode.NON_FINITE_NUMBER, "-Infinity"),
        (b'{"x": 1e400}', RejectCode.NON_FINITE_NUMBER, "overflows"),
        (b'{"uri": "file:x", "uri": "file:y"}', RejectCode.DUPLICATE_KEY, "'uri'"),
        (b'{"uri": "file:x", "a": {"b": 1, "c": 2, "b": 3}}', RejectCode.DUPLICATE_KEY, "'b'"),
        (b'{"a": 1, "\\u0061": 2}', RejectCode.DUPLICATE_KEY, "'a'"),
        (b"[" * 100_000, RejectCode.TOO_DEEP, str(MAX_DEPTH)),
        (b"[]", RejectCode.SCHEMA_INVALID, "got list"),
        (b"null", RejectCode.SCHEMA_INVALID, "got NoneType"),
        (b"{}", RejectCode.SCHEMA_INVALID, "uri: Field required"),
        (b'{"uri": "no scheme"}', RejectCode.SCHEMA_INVALID, "uri:"),
        (b'{"uri": "file:x", "labels": {"k": 1}}', RejectCode.SCHEMA_INVALID, "labels.k:"),
        (b'{"uri": "file:x", "extensions": null, "more": 1}', RejectCode.SCHEMA_INVALID, "extensions:"),
        (b'{"uri": "file:x", "schema_version": "one"}', RejectCode.SCHEMA_INVALID, "schema_version:"),
        ('{"uri": "file:x", "schema_version": "².0"}'.encode(), RejectCode.SCHEMA_INVALID, "schema_version:"),
        (b'{"uri": "file:x", "submitted_at": 1769860800}', RejectCode.SCHEMA_INVALID, "RFC 3339"),
        (b'{"uri": "file:x", "submitted_at": "1769860800"}', RejectCode.SCHEMA_INVALID, "RFC 3339"),
        (b'{"uri": "file:x", "submitted_at": "2026-01-31T12:00:00"}', RejectCode.SCHEMA_INVALID, "RFC 3339"),
        (b'{"uri": "file:x", "submitted_at": "2026-02-30T12:00:00Z"}', RejectCode.SCHEMA_INVALID, "submitted_at"),
        (b'{"uri": "file:x", "submitted_at": "0001-01-01T00:00:00+01:00"}', RejectCode.SCHEMA_INVALID, "years"),
    ],
)  # fmt: skip
def test_each_fault_has_its_code_and_says_where(value: bytes, code: RejectCode, detail: str) -> None:
    error = refusal(value)
    assert error.code is code
    assert detail in error.detail


@pytest.mark.parametrize(("levels", "accepted"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_the_depth_limit_is_exact(levels: int, accepted: bool) -> None:
    value = b"[" * levels + b"]" * levels
    if accepted:
        assert parse_json(value)
        return
    with pytest.raises(WireError) as caught:
        parse_json(value)
    assert caught.value.code is RejectCode.TOO_DEEP


def test_unknown_fields_nest_as_deep_as_can_be_written_and_read_again() -> None:
    levels = MAX_EXTENSION_DEPTH - 1
    value = b'{"uri": "file:x", "deep": ' + b"[" * levels + b"]" * levels + b"}"
    once = decode(MediaReference, value)
    assert decode(MediaReference, encode(once)) == once
    one_more = b'{"uri": "file:x", "deep": [' + b"[" * levels + b"]" * levels + b"]}"
    assert "flatten" in refusal(one_more).detail


def test_the_detail_is_bounded_however_long_the_record() -> None:
    many = b'{"uri": "file:x", "labels": {' + b", ".join(b'"k%d": 1' % i for i in range(2000)) + b"}}"
    assert len(refusal(many).detail) <= 1024
    long_key = b'{"uri": "file:x", "' + b"k" * 5000 + b'": 1, "' + b"k" * 5000 + b'": 2}'
    assert len(refusal(long_key).detail) <= 200


@pytest.mark.parametrize("version", ["2.0", "0.1", "10.0", "2", "99999999999999999999.0"])
def test_another_major_version_is_no_fault_of_the_record(version: str) -> None:
    with pytest.raises(UnknownMajorVersion, match=r"MediaReference.schema_version .* reads 1\.x"):
        decode(MediaReference, b'{"uri": "file:x", "schema_version": "%s"}' % version.encode())


def test_a_later_minor_version_is_read() -> None:
    assert decode(MediaReference, b'{"uri": "file:x", "schema_version": "1.7"}').schema_version == "1.7"


def test_unknown_fields_join_the_given_extensions() -> None:
    reference = decode(MediaReference, b'{"uri": "file:x", "extensions": {"a": 1}, "b": [2]}')
    assert reference.extensions == {"a": 1, "b": [2]}


def test_times_are_kept_and_written_as_utc() -> None:
    reference = decode(MediaReference, b'{"uri": "file:x", "submitted_at": "2026-01-31T12:00:00.25+02:00"}')
    assert reference.submitted_at is not None
    assert reference.submitted_at.tzinfo is UTC
    assert b'"submitted_at":"2026-01-31T10:00:00.250000Z"' in encode(reference)
    local = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=-5)))
    assert b'"2026-01-31T17:00:00Z"' in encode(MediaReference(uri="file:x", submitted_at=local))


def test_a_time_without_a_zone_cannot_be_constructed() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        MediaReference(uri="file:x", submitted_at=datetime(2026, 1, 31))  # noqa: DTZ001 - the fault shown


def test_text_outside_the_basic_plane_survives_escapes() -> None:
    reference = decode(MediaReference, b'{"uri": "file:x", "title": "\\ud83d\\ude00", "path": "a\\\\ud800"}')
    assert reference.extensions == {"title": "\N{GRINNING FACE}", "path": "a\\ud800"}


def test_the_extremes_of_64_bits_survive() -> None:
    reference = decode(MediaReference, b'{"uri": "file:x", "n": [-9223372036854775808, 18446744073709551615]}')
    assert decode(MediaReference, encode(reference)) == reference


def test_records_and_errors_cross_process_borders() -> None:
    reference = decode(MediaReference, b'{"uri": "file:x", "submitted_at": "2026-01-31T12:00:00Z", "b": 1}')
    assert pickle.loads(pickle.dumps(reference)) == reference
    error = pickle.loads(pickle.dumps(refusal(b"{}")))
    assert (error.code, str(error)) == (RejectCode.SCHEMA_INVALID, "schema_invalid: uri: Field required")
