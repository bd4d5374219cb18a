"""What a finding says of media that nobody could decode."""

from __future__ import annotations

import json

import ocsf_emitter
from ocsf_emitter import models as oracle

from schemas.media import EvidenceRef
from schemas.ocsf import decode_finding, encode_finding, finding_from_decision
from schemas.siem import cef_line, ecs_document
from tests.support.findings import decision


def test_what_could_not_be_decoded_is_named_by_digest_too() -> None:
    kept = EvidenceRef(kind="original", uri="s3://e/content/news-desk/x", sha256="ab" * 32)
    value = encode_finding(finding_from_decision(decision("escalate_undecodable", evidence=(kept,))))
    found = json.loads(value)
    file = found["evidences"][0]["file"]
    assert set(file) == {"name", "type_id", "type", "hashes"}
    assert [entry["value"] for entry in file["hashes"]] == ["ab" * 32]
    ocsf_emitter.validate(oracle.DetectionFinding.model_validate(found))
    ours = decode_finding(value)
    assert ecs_document(ours)["file"]["hash"] == {"sha256": "ab" * 32}
    assert "fsize" not in cef_line(ours)
    assert f"fileHash={'ab' * 32}" in cef_line(ours)
