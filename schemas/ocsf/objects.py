"""OCSF objects inside a finding: only the attributes that we fill.

Named and typed as https://schema.ocsf.io/1.5.0/classes/detection_finding says. Attributes with a default came
after the first release of these records; a finding of that release is read without them.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from schemas.base import Part
from schemas.decision import Decision
from schemas.media import EvidenceRef
from schemas.ocsf.numbers import OCSF_VERSION
from schemas.review import ReviewVerdict


class Product(Part):
    """OCSF object `product`."""

    name: Literal["mediasieve"] = "mediasieve"
    vendor_name: Literal["mediasieve"] = "mediasieve"
    version: str


class Metadata(Part):
    """OCSF object `metadata`: duplicates share `uid`, events of one media item `correlation_uid`.

    `event_code` is what a SIEM filters by without knowing us: `block`, `escalate`, `pass.<risk>`,
    `review.<label>` or `closed`.
    """

    version: Literal["1.5.0"] = OCSF_VERSION
    product: Product
    profiles: tuple[str, ...]
    uid: UUID
    sequence: int
    correlation_uid: str
    tenant_uid: str
    event_code: str | None = None
    labels: tuple[str, ...] = ()


class Analytic(Part):
    """OCSF object `analytic`; `uid` is the bundle, `version` is `<bundle>/<policy>`."""

    name: Literal["mediasieve"] = "mediasieve"
    type_id: Literal[4] = 4
    type: Literal["Learning (ML/DL)"] = "Learning (ML/DL)"
    version: str
    uid: str | None = None


class FindingInfo(Part):
    """OCSF object `finding_info`; `uid` groups all events of one decision. Times in milliseconds since the epoch.

    `data_sources` is the producer that sent the media.
    """

    uid: UUID
    title: str
    desc: str
    analytic: Analytic
    created_time: int | None = None
    data_sources: tuple[str, ...] | None = None


class SecurityPolicy(Part):
    """OCSF object `policy`: the thresholds that decided."""

    name: Literal["mediasieve"] = "mediasieve"
    version: str


class User(Part):
    """OCSF object `user`."""

    name: str


class Fingerprint(Part):
    """OCSF object `fingerprint`."""

    algorithm_id: Literal[3] = 3
    algorithm: Literal["SHA-256"] = "SHA-256"
    value: str


class File(Part):
    """OCSF object `file`; size in bytes. Of media that could not be decoded only name and digest are known."""

    name: str
    type_id: Literal[1] = 1
    type: Literal["Regular File"] = "Regular File"
    size: int | None = None
    mime_type: str | None = None
    hashes: tuple[Fingerprint, ...]


class Url(Part):
    """OCSF object `url`."""

    url_string: str


class EvidenceData(Part):
    """Where the evidence lies and its digests, never the evidence itself."""

    evidence: tuple[EvidenceRef, ...]


class Evidences(Part):
    """OCSF object `evidences`."""

    url: Url
    file: File | None = None
    data: EvidenceData | None = None


class Unmapped(Part):
    """OCSF object for what the class has no attribute for: our records, whole."""

    mediasieve: Decision
    review: ReviewVerdict | None = None
