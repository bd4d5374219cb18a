"""The note beside a committed offset: whatever stands there, reading it never fails."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.streaming.partitions import Note
from tests.support.record_strategies import json_values

OFFSETS = st.integers(0, 2**63 - 1)
notes = st.builds(Note, begun=OFFSETS, solo=st.integers(0, 1000), accept=OFFSETS)


@given(notes)
def test_a_note_comes_back_as_it_was(note: Note) -> None:
    assert Note.decode(note.encode()) == note


@given(notes)
def test_a_note_is_small_enough_for_kafka(note: Note) -> None:
    assert len(note.encode().encode()) < 4096, "offset.metadata.max.bytes"


@given(st.text())
def test_any_text_is_a_note_or_none(text: str) -> None:
    note = Note.decode(text)
    assert Note.decode(note.encode()) == note


@given(st.dictionaries(st.sampled_from(["begun", "solo", "accept", "x"]), json_values))
def test_any_object_is_a_note_or_none(data: dict[str, object]) -> None:
    note = Note.decode(orjson.dumps(data).decode())
    assert Note.decode(note.encode()) == note
    assert note.solo >= 0
    assert note.accept >= 0


@pytest.mark.parametrize("text", ['{"solo":1e300}', '{"solo":-1}', '{"accept":9223372036854775808}'])
def test_numbers_that_no_member_writes_count_as_no_note(text: str) -> None:
    assert Note.decode(text) == Note()


def test_no_note_is_the_default() -> None:
    assert Note.decode("") == Note()
    assert not Note().encode()
