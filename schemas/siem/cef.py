"""OCSF -> ArcSight Common Event Format, version 0 of the line and the key names of its implementation standard.

Keys and greatest lengths are those of the extension dictionary in "Implementing ArcSight Common Event Format",
version 25; for the header it gives none, so those are ours. A longer value is cut; the finding on the topic keeps it
whole.
"""

from __future__ import annotations

import re

from schemas.ocsf import DetectionFinding
from schemas.ocsf.numbers import Severity

MAX_LENGTH = {
    "act": 63,
    "cat": 1023,
    "cn1Label": 1023,
    **{f"cs{n}": 4000 for n in range(1, 7)},
    **{f"cs{n}Label": 1023 for n in range(1, 7)},
    "externalId": 40,
    "fileHash": 255,
    "fileType": 1023,
    "fname": 1023,
    "msg": 1023,
    "outcome": 63,
    "reason": 1023,
    "request": 1023,
    "sourceServiceName": 1023,
    "suser": 1023,
}
"""In characters before escaping. Numbers and times have no entry: they are short by their type."""

HEADER_MAX_LENGTH = (63, 63, 31, 1023, 512)
"""Device vendor, product, version, event class id, name."""

_SEVERITY = {Severity.INFORMATIONAL: 1, Severity.LOW: 3, Severity.MEDIUM: 5, Severity.HIGH: 8}
"""CEF calls 0-3 low, 4-6 medium, 7-8 high, 9-10 very high."""

_LINE_ENDS_AND_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROLS_BUT_LINE_ENDS = re.compile("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPED = str.maketrans({"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"})


def cef_line(finding: DetectionFinding) -> str:
    """One line without a line end, and without the syslog header that a transport puts before it."""
    product = finding.metadata.product
    named = (
        product.vendor_name,
        product.name,
        product.version,
        finding.metadata.event_code or str(finding.type_uid),
        finding.finding_info.title,
    )
    header = (_header(text, most) for text, most in zip(named, HEADER_MAX_LENGTH, strict=True))
    extension = " ".join(f"{key}={_extension(key, value)}" for key, value in _fields(finding).items())
    return "|".join(("CEF:0", *header, str(_SEVERITY[finding.severity_id]), extension))


def _fields(finding: DetectionFinding) -> dict[str, str | int]:
    """The extension; absent values are left out with their labels."""
    evidence, info, metadata = finding.evidences[0], finding.finding_info, finding.metadata
    given: dict[str, str | int | None] = {
        "rt": finding.time,
        "externalId": str(metadata.uid),
        "act": finding.disposition,
        "outcome": finding.action,
        "cat": finding.activity_name,
        "reason": info.desc,
        "msg": finding.message,
        "request": evidence.url.url_string,
        "sourceServiceName": info.data_sources[0] if info.data_sources else None,
        "suser": None if finding.assignee is None else finding.assignee.name,
    }
    if evidence.file is not None:
        file = evidence.file
        given |= {
            "fname": file.name,
            "fileHash": file.hashes[0].value,
            "fileType": file.mime_type,
            "fsize": file.size,
        }
    data = evidence.data
    labelled: dict[str, tuple[str, str | int | None]] = {
        "cn1": ("riskScore", finding.risk_score),
        "cs1": ("decisionUid", str(info.uid)),
        "cs2": ("bundleAndPolicy", info.analytic.version),
        "cs3": ("labels", ",".join(metadata.labels)),
        "cs4": ("media", metadata.correlation_uid),
        "cs5": ("evidence", ",".join(f"{ref.kind}:{ref.sha256}" for ref in data.evidence) if data else None),
        "cs6": ("verdict", finding.verdict),
    }
    for key, (label, value) in labelled.items():
        if value is not None and value != "":
            given |= {key: value, f"{key}Label": label}
    return {key: value for key, value in given.items() if value is not None and value != ""}


def _header(text: str, most: int) -> str:
    """A header field ends at a bar and cannot hold line ends: those, and control characters, become blanks."""
    return _LINE_ENDS_AND_CONTROLS.sub(" ", text)[:most].replace("\\", "\\\\").replace("|", "\\|")


def _extension(key: str, value: str | int) -> str:
    """Bars need no escape here. Control characters become blanks, cut text ends before the escape is made."""
    if isinstance(value, int):
        return str(value)
    return _CONTROLS_BUT_LINE_ENDS.sub(" ", value)[: MAX_LENGTH[key]].translate(_ESCAPED)
