"""From decision topics to GET /v1/media/{id}: states, reviews, evidence, what is forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.media.objects import Objects
from pipeline.streaming.transport import RawRecord, TopicPartition
from schemas.decision import Outcome
from schemas.media import EvidenceRef
from schemas.ocsf import encode_finding, finding_from_review
from schemas.review import Label
from schemas.topics import Topic
from tests.support.findings import review_of
from tests.support.gateway import GatewaySite, dead_letter_record, decision_record, problem, tenant_decision
from workers.web.principal import Role

URI = "https://example.org/a.png"
BLOCKS = TopicPartition(Topic.BLOCK.value, 0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path)
    yield made
    made.close()


def test_the_states_of_a_submission(site: GatewaySite) -> None:
    key = site.key()
    assert site.ask("GET", "/v1/media/a", headers=key).status_code == 404
    site.submit(key, uri=URI, media_id="a")
    accepted = site.ask("GET", "/v1/media/a", headers=key).json()
    assert (accepted["state"], accepted["decision"], accepted["events"]) == ("accepted", None, [])
    decision = site.decided("a", "block")
    decided = site.ask("GET", "/v1/media/a", headers=key).json()
    assert decided["state"] == "decided"
    assert decided["decision"]["outcome"] == "block"
    assert decided["decision"]["decision_uid"] == str(decision.decision_uid)
    assert decided["decision"]["final_score"] == decision.final_score
    assert decided["decision"]["policy_version"] == decision.admission.policy_version


def test_a_dead_letter_is_a_rejection_until_there_is_a_decision(site: GatewaySite) -> None:
    key = site.key()
    site.submit(key, uri=URI, media_id="a")
    site.projection.apply([dead_letter_record("a"), dead_letter_record("b", tenant=None, offset=1)])
    body = site.ask("GET", "/v1/media/a", headers=key).json()
    assert (body["state"], body["rejection"]["code"]) == ("rejected", "source_gone")
    assert site.ask("GET", "/v1/media/b", headers=key).status_code == 404
    site.decided("a")
    body = site.ask("GET", "/v1/media/a", headers=key).json()
    assert (body["state"], body["rejection"]) == ("decided", None)


def test_a_pending_submission_is_told_as_such(site: GatewaySite) -> None:
    site.registry.claim([])
    from workers.gateway.registry import Submission

    site.registry.claim([Submission("acme", "a", "f" * 64)])
    assert site.ask("GET", "/v1/media/a", headers=site.key()).json()["state"] == "pending"


def test_media_published_straight_to_kafka_is_known_too(site: GatewaySite) -> None:
    site.decided("direct")
    body = site.ask("GET", "/v1/media/direct", headers=site.key()).json()
    assert (body["state"], body["submitted_at"]) == ("decided", None)


def test_what_people_said_last_holds(site: GatewaySite) -> None:
    decision = site.decided("a", "escalate_uncertain")
    review = review_of(decision, Label.GENERATED)
    finding = encode_finding(finding_from_review(decision, review, 1))
    site.projection.apply([RawRecord(BLOCKS, 0, None, finding)])
    body = site.ask("GET", "/v1/media/a", headers=site.key()).json()
    assert [e["activity"] for e in body["events"]] == ["create", "update"]
    assert (body["decision"]["outcome"], body["decision"]["machine_outcome"]) == ("block", "escalate")
    assert body["decision"]["review_label"] == "generated"
    assert "reviewer" not in body["decision"]


def test_of_equal_decisions_the_strictest_holds(site: GatewaySite) -> None:
    blocked = tenant_decision("a", "block", "acme")
    milder = blocked.model_copy(update={"outcome": Outcome.ESCALATE, "risk": None})
    records = [decision_record(blocked, 0), decision_record(milder, 0)]
    assert site.projection.apply(records) == 1, "equal metadata.uid: one event"
    assert site.ask("GET", "/v1/media/a", headers=site.key()).json()["decision"]["outcome"] == "block"


def test_a_record_read_again_changes_nothing(site: GatewaySite) -> None:
    record = decision_record(tenant_decision("a", "block", "acme"))
    assert [site.projection.apply([record]) for _ in range(2)] == [1, 0]
    assert site.projection.apply([record, record]) == 0
    assert len(site.parts.views.after("acme", 0, 10).events) == 1


def test_tenants_do_not_see_each_other(site: GatewaySite) -> None:
    site.decided("a", "block", tenant="rival")
    assert site.ask("GET", "/v1/media/a", headers=site.key()).status_code == 404
    foreign = site.ask("GET", "/v1/media/a?tenant=rival", headers=site.key())
    assert (foreign.status_code, problem(foreign)) == (403, "tenant-refused")
    both = site.key(tenants=["acme", "rival"])
    assert site.ask("GET", "/v1/media/a?tenant=rival", headers=both).status_code == 200
    assert site.ask("GET", "/v1/media/a", headers=site.key(roles=[Role.SUBMIT])).status_code == 403
    assert site.ask("GET", "/v1/media/a?tenant=rival", headers=site.key(tenants=None)).status_code == 200


def with_evidence(site: GatewaySite, tenant: str = "acme") -> tuple[str, str]:
    """A decision that names a stored blob; its link and its URI."""
    uri, sha256 = site.store.put_evidence(tenant, b"a panel", ".png")
    ref = EvidenceRef(kind="spectral_panel", uri=uri, sha256=sha256)
    decision = tenant_decision("a", "block", tenant).model_copy(update={"evidence": (ref,)})
    site.projection.apply([decision_record(decision)])
    return f"/v1/media/a/evidence/{sha256}?tenant={tenant}", uri


def test_evidence_is_linked_and_given_out(site: GatewaySite) -> None:
    link, _ = with_evidence(site)
    status = site.ask("GET", "/v1/media/a", headers=site.key()).json()
    assert [e["href"] for e in status["decision"]["evidence"]] == [link]
    answer = site.ask("GET", link, headers=site.key())
    assert (answer.status_code, answer.content) == (200, b"a panel")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_evidence_of_others_of_nothing_and_that_is_gone(site: GatewaySite) -> None:
    link, uri = with_evidence(site)
    rival = site.key(tenants=["rival"])
    assert site.ask("GET", link, headers=rival).status_code == 403
    assert site.ask("GET", link.partition("?")[0], headers=rival).status_code == 404
    other = hashlib.sha256(b"never stored").hexdigest()
    assert site.ask("GET", f"/v1/media/a/evidence/{other}", headers=site.key()).status_code == 404
    Objects(site.store.objects.base).delete(site.store.key_of(uri))
    gone = site.ask("GET", link, headers=site.key())
    assert (gone.status_code, problem(gone)) == (404, "not-found")


def test_the_oldest_open_submission(site: GatewaySite) -> None:
    assert site.registry.oldest_open_s() is None
    site.submit(site.key(), uri=URI, media_id="a")
    site.clock.advance(5)
    site.submit(site.key(), uri=URI, media_id="b")
    site.clock.advance(7)
    assert site.registry.oldest_open_s() == 12
    site.decided("a")
    assert site.registry.oldest_open_s() == 7
    site.projection.apply([dead_letter_record("b")])
    assert site.registry.oldest_open_s() is None


def test_old_rows_are_forgotten(site: GatewaySite) -> None:
    site.submit(site.key() | {"Idempotency-Key": "k"}, uri=URI, media_id="a")
    site.decided("a")
    site.clock.advance(100)
    site.decided("b", offset=1)
    assert site.projection.purge(keep_s=50.0) == 1
    purged, last = site.parts.views.bounds()
    assert last == purged + 1
    assert site.ask("GET", "/v1/media/a", headers=site.key()).status_code == 404
    assert site.ask("GET", "/v1/media/b", headers=site.key()).status_code == 200
    assert site.registry.same_request("key:x", "k", "f" * 64), "a purged key is new again"
