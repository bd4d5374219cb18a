"""Uploaded media: read from the content store by digest, of the item's own tenant alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.media.content_store import ContentStore
from pipeline.media.errors import FetchRejected, MediaError
from pipeline.media.uploaded import is_uploaded, read_uploaded, uploaded_uri
from pipeline.streaming.stage import Defer, DeferScope, Reject
from schemas.deadletter import RejectCode
from schemas.decision import Outcome, ReasonCode
from schemas.media import MediaReference, SuspectMedia
from schemas.topics import Topic
from tests.support.entries import item as plain_item
from tests.support.worker_stages import DATA, FakedClassifier, decided, only_record

SHA256 = hashlib.sha256(DATA).hexdigest()
URI = uploaded_uri(SHA256)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    made = ContentStore(tmp_path.as_uri())
    made.put("acme", SHA256, DATA)
    return made


def test_the_bytes_and_their_digest(store: ContentStore) -> None:
    fetched = read_uploaded(store, "acme", MediaReference(uri=URI, size_bytes=len(DATA)), 100)
    assert (fetched.data, fetched.sha256) == (DATA, SHA256)
    assert is_uploaded(URI)
    assert not is_uploaded("file:///content")


def test_another_tenant_s_bytes_are_missing(store: ContentStore) -> None:
    with pytest.raises(MediaError) as caught:
        read_uploaded(store, "rival", MediaReference(uri=URI), 100)
    assert caught.value.code is ReasonCode.CONTENT_MISSING


@pytest.mark.parametrize("uri", ["content:../../acme", f"content:{SHA256}/..", f"content://acme/{SHA256}", "content:a"])
def test_what_names_no_digest_is_refused(store: ContentStore, uri: str) -> None:
    with pytest.raises(FetchRejected) as caught:
        read_uploaded(store, "acme", MediaReference(uri=uri), 100)
    assert caught.value.code is RejectCode.URI_REFUSED


def test_what_was_declared_must_be_so(store: ContentStore) -> None:
    with pytest.raises(FetchRejected) as caught:
        read_uploaded(store, "acme", MediaReference(uri=URI, size_bytes=1), 100)
    assert caught.value.code is RejectCode.DECLARED_MISMATCH


def test_too_large(store: ContentStore) -> None:
    with pytest.raises(MediaError) as caught:
        read_uploaded(store, "acme", MediaReference(uri=URI), len(DATA) - 1)
    assert caught.value.code is ReasonCode.MEDIA_TOO_LARGE


def uploaded_item(faked: FakedClassifier, *, kept: bool = True):
    if kept:
        faked.store.put("acme", SHA256, DATA)
    return replace(plain_item(tenant="acme", value=MediaReference(uri=URI, tenant="acme")))


def test_the_classifier_reads_it_without_a_fetch() -> None:
    faked = FakedClassifier()
    suspect = only_record(faked.process(uploaded_item(faked)), Topic.SUSPECT)
    assert isinstance(suspect, SuspectMedia)
    assert suspect.admission.uri == URI
    assert faked.fetcher.attempts == []


def test_what_is_missing_is_escalated() -> None:
    faked = FakedClassifier()
    decision = decided(faked.process(uploaded_item(faked, kept=False)), Outcome.ESCALATE)
    assert decision.reasons[0].code is ReasonCode.CONTENT_MISSING


def test_a_store_that_is_away_is_waited_for() -> None:
    faked = FakedClassifier()
    asked = uploaded_item(faked)
    faked.store.objects.down = True  # type: ignore[attr-defined]
    outcome = faked.process(asked)
    assert isinstance(outcome, Defer)
    assert outcome.scope is DeferScope.DEPENDENCY
    assert not isinstance(outcome, Reject)
