"""Pointers are trusted only as they were signed."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from pipeline.evidence.log.checkpoint import Checkpoint
from pipeline.evidence.log.errors import Untrusted
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.signer import Signer
from schemas.reference import PublicationAction, ReferenceArtefact, ReferencePointer
from schemas.wire import UnknownMajorVersion, encode
from tests.support.learning import NOW
from workers.adaptation.pointer import _message, signed_pointer, trusted_pointer

SIGNER = Signer.generate("tests/references")
KEYS = KeySet([SIGNER.verifier])
ARTEFACT = ReferenceArtefact(version="a" * 64, sha256="b" * 64, uri="memory://references/x", families=("flux",))


def pointer(signer: Signer = SIGNER, **changed: Any) -> ReferencePointer:
    fields: dict[str, Any] = {
        "base": "c" * 64,
        "sequence": 3,
        "action": PublicationAction.PROMOTE,
        "active": ARTEFACT,
        "shadow": None,
        "actor": "ops",
        "reason": "40 samples, übergeben",
        "published_at": NOW,
    }
    return signed_pointer(signer, **{**fields, **changed})


def test_what_was_signed_is_trusted() -> None:
    assert trusted_pointer(encode(pointer()), KEYS) == pointer()


def altered(change: dict[str, Any]) -> bytes:
    return orjson.dumps({**orjson.loads(encode(pointer())), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 4},
        {"base": "d" * 64},
        {"active": None},
        {"active": {**ARTEFACT.model_dump(), "sha256": "e" * 64}},
        {"shadow": {**ARTEFACT.model_dump(), "version": "e" * 64}},
        {"actor": "mallory"},
        {"action": "rollback"},
        {"published_at": "2026-02-03T04:05:07Z"},
        {"added": "by a stranger"},
    ],
)
def test_what_was_changed_is_not(change: dict[str, Any]) -> None:
    with pytest.raises(Untrusted, match="the signature is not of this pointer"):
        trusted_pointer(altered(change), KEYS)


def test_a_field_of_a_newer_release_is_signed_too() -> None:
    content = orjson.loads(encode(pointer()))
    content["priority"] = 1
    signature = base64.b64encode(SIGNER.sign(_message(orjson.dumps(content)))).decode()
    content["signature"] = {**content["signature"], "signature": signature}
    assert trusted_pointer(orjson.dumps(content), KEYS).sequence == 3
    content["priority"] = 2
    with pytest.raises(Untrusted):
        trusted_pointer(orjson.dumps(content), KEYS)


def test_another_key_of_the_same_name_is_not_trusted() -> None:
    stranger = pointer(Signer.generate("tests/references"))
    with pytest.raises(Untrusted, match="which is no key in use"):
        trusted_pointer(encode(stranger), KEYS)


def test_the_signature_of_another_pointer_is_not_trusted() -> None:
    borrowed = pointer().model_copy(update={"signature": pointer(sequence=9).signature})
    with pytest.raises(Untrusted, match="not of this pointer"):
        trusted_pointer(encode(borrowed), KEYS)


def test_a_retired_key_is_not_trusted() -> None:
    retired = KeySet([SIGNER.verifier, Signer.generate("tests/next").verifier]).retire(
        SIGNER.verifier, [Checkpoint("x", 1, bytes(32))]
    )
    with pytest.raises(Untrusted, match="no key in use"):
        trusted_pointer(encode(pointer()), retired)


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b"\xff", b'{"sequence": 1}', b"null"])
def test_what_is_no_pointer_is_not_trusted(value: bytes) -> None:
    with pytest.raises(Untrusted, match="no reference pointer"):
        trusted_pointer(value, KEYS)


def test_a_number_that_canonical_json_cannot_hold_is_not_trusted() -> None:
    with pytest.raises(Untrusted, match="no reference pointer"):
        trusted_pointer(altered({"added": 2**60}), KEYS)


def test_a_newer_major_version_stops() -> None:
    with pytest.raises(UnknownMajorVersion):
        trusted_pointer(altered({"schema_version": "2.0"}), KEYS)
