"""Admission: the stamp that a reference carries to its decision."""

from __future__ import annotations

from pipeline.detection.bundle import Bundle
from pipeline.streaming.codec import Identity
from pipeline.streaming.stage import Item
from schemas.media import DEFAULT_TENANT, Admission, MediaReference, decision_uid
from schemas.types import Priority
from workers.classifier.settings import ClassifierSettings
from workers.verdicts import now


def identity(reference: MediaReference) -> Identity:
    """Whose reference it is."""
    return Identity(reference.media_id, reference.tenant or DEFAULT_TENANT, reference.source or "")


def refused_tenant(item: Item[MediaReference], settings: ClassifierSettings) -> str | None:
    """Why the producer may not publish for this tenant; None when it may."""
    allowed = settings.producer(item.source).tenants
    if not allowed or item.tenant in allowed:
        return None
    return f"tenant: source {item.source or '(none)'!r} may not publish for {item.tenant!r}; allowed: {sorted(allowed)}"


def admit(
    item: Item[MediaReference], content_sha256: str | None, bundle: Bundle, settings: ClassifierSettings
) -> Admission:
    """Stamp ids, versions and the granted priority.

    A producer may always ask for the priority lane; it gets it within the class configured for it.
    """
    reference = item.value
    granted = settings.producer(item.source).high_priority and reference.priority is Priority.HIGH
    return Admission(
        tenant=item.tenant,
        media_id=item.media_id,
        decision_uid=decision_uid(item.tenant, item.media_id, content_sha256, bundle.policy.version, bundle.version),
        uri=reference.uri,
        source=reference.source,
        priority=Priority.HIGH if granted else Priority.NORMAL,
        labels=reference.labels,
        submitted_at=reference.submitted_at,
        expires_at=reference.expires_at,
        admitted_at=now(),
        policy_version=bundle.policy.version,
        bundle_version=bundle.version,
    )
