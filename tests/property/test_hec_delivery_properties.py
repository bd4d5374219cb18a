"""No order of faults between a topic and Splunk's collector loses an event."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.findings import published
from tests.support.hec import HecEndpoint, Poll, Post
from tests.support.hec_forwarder import Forwarder

LOG = published(20)
UIDS = [json.loads(value)["metadata"]["uid"] for value in LOG]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(Post), max_size=80),
    st.lists(st.sampled_from(Poll), max_size=80),
    st.integers(1, 12),
    st.integers(1, 5),
)
def test_any_script_of_faults_loses_nothing(posts: list[Post], polls: list[Poll], batch_size: int, window: int) -> None:
    endpoint = HecEndpoint(posts=iter(posts), polls=iter(polls))
    Forwarder(endpoint.client(), batch_size=batch_size, window=window).run(LOG)
    assert set(endpoint.uids()) == set(UIDS)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(Post), max_size=40), st.integers(0, 12))
def test_a_forwarder_that_dies_and_starts_again_loses_nothing(posts: list[Post], rounds: int) -> None:
    endpoint = HecEndpoint(posts=iter(posts))
    first = Forwarder(endpoint.client())
    with suppress(TimeoutError):
        first.run(LOG, rounds)
    committed = set(UIDS[: first.committed])
    assert committed <= set(endpoint.uids()), "an offset is committed only behind what is indexed"
    Forwarder(endpoint.client(), committed=first.committed).run(LOG)
    assert set(endpoint.uids()) == set(UIDS)
