"""Whatever the bytes: a record, or one of the two errors that the wire promises."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import generate
from schemas.base import Record
from schemas.deadletter import EDGE_CODES, RejectCode
from schemas.media import MediaReference
from schemas.ocsf import decision_from_finding
from schemas.wire import UnknownMajorVersion, WireError, decode, encode, parse_json
from tests.support.record_strategies import json_values, references

VALID = [path.read_bytes() for path in sorted((generate.ROOT / "examples/valid").glob("*/*.json"))]
RECORDS = st.sampled_from([model for model in generate.RECORDS if issubclass(model, Record)])
JSON_TOKENS = ["{", "}", "[", "]", ":", ",", '"', "uri", "\\u", "\\ud8", "00", "1e9", "-", "null", "²", " ", "é"]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid example with some bytes exchanged, removed or put in."""
    value = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(value)


any_bytes = (
    st.binary(max_size=200)
    | st.lists(st.sampled_from(JSON_TOKENS), max_size=30).map(lambda t: "".join(t).encode())
    | json_values.map(lambda v: json.dumps(v).encode())
    | damaged()
)


@settings(max_examples=250, deadline=None)
@given(RECORDS, any_bytes)
@example(MediaReference, '{"uri": "file:x", "schema_version": "².0"}'.encode())
@example(MediaReference, b'{"uri": "file:x", "submitted_at": "0001-01-01T00:00:00+01:00"}')
def test_decode_raises_nothing_but_its_own_errors(model: type[Record], value: bytes) -> None:
    refusal: WireError | None = None
    record: Record | None = None
    try:
        record = decode(model, value)
    except WireError as error:
        refusal = error
    except UnknownMajorVersion:
        return
    if refusal is not None:
        assert refusal.code in EDGE_CODES
        assert 0 < len(refusal.detail.encode()) <= 4096
    if record is not None:
        assert decode(model, encode(record)) == record


@settings(max_examples=120, deadline=None)
@given(any_bytes)
def test_a_finding_raises_nothing_but_the_same_errors(value: bytes) -> None:
    with contextlib.suppress(WireError, UnknownMajorVersion):
        decision_from_finding(value)


@settings(max_examples=100, deadline=None)
@given(references)
def test_a_reference_comes_back_as_it_was_written(reference: MediaReference) -> None:
    value = encode(reference)
    assert decode(MediaReference, value) == reference
    assert encode(decode(MediaReference, value)) == value


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=4), json_values, min_size=1, max_size=4), st.booleans(), st.data())
def test_an_object_cut_anywhere_is_truncated(value: dict[str, Any], ascii_only: bool, data: st.DataObject) -> None:
    whole = json.dumps(value, ensure_ascii=ascii_only).encode()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(WireError) as caught:
        parse_json(cut)
    assert caught.value.code is RejectCode.TRUNCATED_JSON
