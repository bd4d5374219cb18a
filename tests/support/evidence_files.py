"""The evidence side on local disk as the command line opens it, from the environment."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pipeline.evidence.assembly import Evidence, open_evidence
from pipeline.evidence.retain import Retainer
from pipeline.settings import load_settings
from schemas.decision import Decision
from schemas.media import EvidenceRef
from schemas.topics import DECISION_TOPICS
from tests.support.evidence import decision, record_bytes
from workers.settings import Settings

POLICY = 'version = "1"\n[default]\nlow_risk = "30d"\ncleared = "30d"\nescalate = "1y"\nblock = "6y"\n'


def environment(directory: Path) -> Mapping[str, str]:
    """Settings of a store with keys, and of a policy file, below `directory`; the files are written."""
    master, policy = directory / "master.key", directory / "retention.toml"
    master.write_bytes(base64.b64encode(bytes(32)))
    policy.write_text(POLICY)
    keys = {"url": (directory / "keys").as_uri(), "master_keys": {"m": str(master)}, "current": "m"}
    return {
        "MEDIASIEVE_STORE__URL": (directory / "store").as_uri(),
        "MEDIASIEVE_STORE__KEYS": json.dumps(keys),
        "MEDIASIEVE_RETENTION_POLICY": str(policy),
    }


def opened() -> Evidence:
    """As the command line would."""
    return open_evidence(load_settings(Settings))


def archived(evidence: Evidence, media_id: str, decided_at: datetime, content: bytes, **fields: object) -> Decision:
    """A committed decision on content that lies in the store since then."""
    uri, sha256 = evidence.store.put_evidence("acme", content, ".png")
    ref = EvidenceRef(kind="spectral_panel", uri=uri, sha256=sha256)
    evidence.store.put("acme", sha256, content)
    made = decision(media_id, sha256=sha256, evidence=[ref], at=decided_at, **fields)  # type: ignore[arg-type]
    retainer = Retainer(evidence.archive, evidence.holds, evidence.now)
    retainer.committed(made, record_bytes(made), DECISION_TOPICS[made.outcome], 0, int(media_id.strip("m")))
    return made


def put_at(directory: Path, moment: datetime) -> None:
    """All objects that are there, as if put then."""
    for path in directory.rglob("*"):
        if path.is_file():
            os.utime(path, (moment.timestamp(), moment.timestamp()))
