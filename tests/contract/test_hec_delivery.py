"""From a topic to Splunk's collector: distinct `metadata.uid` received == events published, whatever goes wrong."""

from __future__ import annotations

import json
from itertools import cycle, islice

import httpx
import pytest

from tests.support.findings import published
from tests.support.hec import HecEndpoint, Poll, Post
from tests.support.hec_forwarder import Forwarder

LOG = published(60)
UIDS = [json.loads(value)["metadata"]["uid"] for value in LOG]
FINDING_UIDS = {json.loads(value)["finding_info"]["uid"] for value in LOG}


def test_each_published_event_has_an_uid_of_its_own_and_findings_only_group() -> None:
    assert len(LOG) > len(FINDING_UIDS) == 60
    assert len(set(UIDS)) == len(UIDS) == len(LOG)


def test_without_faults_each_event_arrives_once() -> None:
    endpoint = HecEndpoint()
    Forwarder(endpoint.client()).run(LOG)
    assert endpoint.uids() == UIDS


@pytest.mark.parametrize("how", [how for how in Post if how is not Post.FINE])
def test_every_fault_of_a_batch_loses_nothing(how: Post) -> None:
    endpoint = HecEndpoint(posts=islice(cycle([how, Post.FINE]), 30))
    forwarder = Forwarder(endpoint.client())
    forwarder.run(LOG)
    assert how in endpoint.done
    assert forwarder.committed == len(LOG)
    assert set(endpoint.uids()) == set(UIDS)
    twice = len(endpoint.indexed) > len(LOG)
    assert twice == (how in {Post.REPLY_LOST, Post.ACK_LOST, Post.TWICE})


@pytest.mark.parametrize("how", [how for how in Poll if how is not Poll.FINE])
def test_every_fault_of_a_poll_loses_nothing(how: Poll) -> None:
    endpoint = HecEndpoint(polls=islice(cycle([how, Poll.FINE]), 20))
    Forwarder(endpoint.client()).run(LOG)
    assert how in endpoint.done
    assert set(endpoint.uids()) == set(UIDS)
    assert (len(endpoint.indexed) > len(LOG)) == (how is Poll.REPLY_LOST)


def test_counting_findings_instead_of_events_would_hide_a_loss() -> None:
    last = json.loads(LOG[-1])
    kept = [json.loads(value) for value in LOG[:-1]]
    assert {event["finding_info"]["uid"] for event in kept} == FINDING_UIDS
    assert last["metadata"]["uid"] not in {event["metadata"]["uid"] for event in kept}


# The configurations that the documentation warns of do lose events here, so these tests can fail.


def test_taking_200_for_indexed_loses_events() -> None:
    endpoint = HecEndpoint(posts=iter([Post.FINE, Post.VANISHES]))
    Forwarder(endpoint.client(), acks=False).run(LOG)
    assert len(set(UIDS) - set(endpoint.uids())) == 7


def test_a_finite_number_of_retries_loses_events() -> None:
    endpoint = HecEndpoint(posts=iter([Post.BUSY] * 12))
    Forwarder(endpoint.client(), max_retries=2).run(LOG)
    assert set(UIDS) - set(endpoint.uids())


def test_a_collector_that_takes_nothing_holds_the_offset() -> None:
    endpoint = HecEndpoint(posts=cycle([Post.BUSY, Post.UNREACHABLE]))
    forwarder = Forwarder(endpoint.client())
    with pytest.raises(TimeoutError, match=f"committed 0 of {len(LOG)}"):
        forwarder.run(LOG, rounds=50)
    assert endpoint.indexed == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Authorization": "Splunk other"}, 403), ({"X-Splunk-Request-Channel": None}, 400)],
)
def test_the_endpoint_refuses_what_splunk_refuses(headers: dict[str, str | None], status: int) -> None:
    client = HecEndpoint().client()
    sent = {"X-Splunk-Request-Channel": "c", **headers}
    answer = client.post("/services/collector/event", content="{}", headers={k: v for k, v in sent.items() if v})
    assert answer.status_code == status
    assert httpx.codes.is_client_error(answer.status_code)
