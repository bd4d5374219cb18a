"""The sealed objects that a decision rests on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from schemas.base import Part
from schemas.decision import Decision
from schemas.types import Identifier, Sha256

_KEY = re.compile(r"(?:content|evidence)/(?P<tenant>[^/]+)/(?P<sha256>[0-9a-f]{64})(?:\.[a-z0-9]{1,16}){0,2}")


class Payload(Part):
    """One sealed object: `content/{tenant}/{sha256}` or `evidence/{tenant}/{sha256}{suffix}` below the store's URL."""

    key: str
    tenant: Identifier
    sha256: Sha256

    @staticmethod
    def original(tenant: str, sha256: str) -> Payload:
        """The original bytes of media."""
        return Payload(key=f"content/{tenant}/{sha256}", tenant=tenant, sha256=sha256)

    @staticmethod
    def of_key(key: str) -> Payload | None:
        """None for a key that is no tenant's payload."""
        match = _KEY.fullmatch(key)
        return match and Payload(key=key, tenant=match["tenant"], sha256=match["sha256"])

    @staticmethod
    def of_uri(uri: str) -> Payload | None:
        """None for a URI whose end is no tenant's payload."""
        return Payload.of_key("/".join(uri.rsplit("/", 3)[1:]))


def payloads_of(decision: Decision) -> tuple[Payload, ...]:
    """The sealed objects of the decision's own tenant that it names: original bytes and evidence, sorted by key."""
    tenant = decision.admission.tenant
    found = {p for ref in decision.evidence if (p := Payload.of_uri(ref.uri)) is not None and p.tenant == tenant}
    if decision.facts is not None:
        found.add(Payload.original(tenant, decision.facts.sha256))
    return tuple(sorted(found, key=lambda p: p.key))


def digests(payloads: Iterable[Payload]) -> tuple[str, ...]:
    """Their distinct digests, sorted."""
    return tuple(sorted({p.sha256 for p in payloads}))
