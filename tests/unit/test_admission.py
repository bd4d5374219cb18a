"""The stamp that a reference carries to its decision, and what a producer may ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.streaming.stage import Item
from schemas.media import DEFAULT_TENANT, MediaReference, decision_uid
from schemas.types import Priority
from tests.support.cases import NOW
from tests.support.entries import item as plain_item
from tests.support.worker_stages import shipped_bundle
from workers.classifier.admission import admit, identity, refused_tenant
from workers.classifier.settings import ClassifierSettings

OPEN = ClassifierSettings()
STRICT = ClassifierSettings.model_validate(
    {
        "producers": {
            "vip": {"high_priority": True},
            "cams": {"tenants": ["acme", "zoo"]},
        },
        "other_producers": {"tenants": ["public"]},
        "tenant_quota": 5,
        "tenant_quotas": {"acme": 9},
    }
)


def item(tenant: str = "acme", source: str = "test", **fields: Any) -> Item[MediaReference]:
    return replace(plain_item(tenant=tenant, value=MediaReference(uri="file:///x", **fields)), source=source)


def test_the_stamp_holds_what_the_producer_said_and_the_versions() -> None:
    made = admit(item(labels={"camera": "7"}, submitted_at=NOW, expires_at=NOW), "a" * 64, shipped_bundle(), OPEN)
    assert (made.tenant, made.media_id, made.uri) == ("acme", "m-1", "file:///x")
    assert (made.labels, made.submitted_at, made.expires_at) == ({"camera": "7"}, NOW, NOW)
    assert made.bundle_version == shipped_bundle().version
    assert made.policy_version == shipped_bundle().policy.version


def test_the_decision_uid_is_the_same_at_every_delivery() -> None:
    first = admit(item(), "a" * 64, shipped_bundle(), OPEN)
    again = admit(replace(item(), attempt=3, trace_id="f" * 32), "a" * 64, shipped_bundle(), OPEN)
    assert first.decision_uid == again.decision_uid
    bundle = shipped_bundle()
    assert first.decision_uid == decision_uid("acme", "m-1", "a" * 64, bundle.policy.version, bundle.version)
    assert first.decision_uid.version == 5


def test_the_decision_uid_differs_by_tenant_id_and_content() -> None:
    items = [item(), item(tenant="zoo"), replace(item(), media_id="m-2")]
    uids = {admit(i, sha256, shipped_bundle(), OPEN).decision_uid for i in items for sha256 in ("a" * 64, None)}
    assert len(uids) == 6


def test_the_fields_of_a_decision_uid_cannot_run_together() -> None:
    assert decision_uid("a", "bc", None, "p", "b") != decision_uid("ab", "c", None, "p", "b")


@pytest.mark.parametrize(
    ("source", "asked", "granted"),
    [
        ("vip", Priority.HIGH, Priority.HIGH),
        ("vip", Priority.NORMAL, Priority.NORMAL),
        ("cams", Priority.HIGH, Priority.NORMAL),
        ("stranger", Priority.HIGH, Priority.NORMAL),
        ("", Priority.HIGH, Priority.NORMAL),
    ],
)
def test_priority_is_granted_within_the_producers_class_only(source: str, asked: Priority, granted: Priority) -> None:
    assert admit(item(source=source, priority=asked), None, shipped_bundle(), STRICT).priority is granted


@pytest.mark.parametrize(
    ("source", "tenant", "refused"),
    [
        ("cams", "acme", False),
        ("cams", "zoo", False),
        ("cams", "public", True),
        ("vip", "anything", False),
        ("stranger", "public", False),
        ("stranger", "acme", True),
        ("", "acme", True),
    ],
)
def test_a_producer_may_name_the_tenants_of_its_class(source: str, tenant: str, refused: bool) -> None:
    why = refused_tenant(item(tenant=tenant, source=source), STRICT)
    assert (why is not None) is refused
    if why:
        assert repr(tenant) in why
        assert "allowed: " in why


def test_by_default_any_producer_may_name_any_tenant() -> None:
    assert refused_tenant(item(tenant="anyone"), OPEN) is None


def test_what_the_producer_left_out_has_defaults() -> None:
    who = identity(MediaReference(uri="file:///x"))
    assert (who.media_id, who.tenant, who.source) == (None, DEFAULT_TENANT, "")
    full = identity(MediaReference(uri="file:///x", media_id="m", tenant="t", source="s"))
    assert (full.media_id, full.tenant, full.source) == ("m", "t", "s")


def test_quotas_have_exceptions_by_tenant() -> None:
    assert (STRICT.quota("acme"), STRICT.quota("zoo")) == (9, 5)
