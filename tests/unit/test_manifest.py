"""The manifest of a decision: sorted, complete, and named by its digest."""

from __future__ import annotations

import hashlib
import json

import orjson
import pytest

from pipeline.evidence.manifest import Manifest, SpectralGrounds, manifest_of, read_manifest, with_manifest
from pipeline.media.errors import ContentCorrupt, ContentMissing
from schemas.decision import Decision, Outcome, ReasonCode
from schemas.media import EvidenceRef, Feature
from schemas.types import StageName
from tests.support.cases import decision, facts, score
from tests.support.worker_stages import BreakableStore

GROUNDS = SpectralGrounds(
    score=0.9, p_value=1e-9, stratum="png", features=(Feature(name="grid", value=1e21, percentile=99.0),)
)


@pytest.fixture
def store() -> BreakableStore:
    return BreakableStore()


def made() -> Decision:
    panel = EvidenceRef(kind="spectral_panel", uri="memory:///evidence/acme/x", sha256="1" * 64)
    scores = (score(StageName.CLASSIFIER, 0.4), score(StageName.SPECTRAL, None))
    return decision(Outcome.ESCALATE, ReasonCode.UNCERTAIN).model_copy(
        update={"facts": facts(), "evidence": (panel,), "scores": scores}
    )


def test_it_is_stored_and_named_last(store: BreakableStore) -> None:
    decided = with_manifest(made(), store, GROUNDS, "2" * 64)
    named = decided.evidence[-1]
    assert [kept.kind for kept in decided.evidence] == ["spectral_panel", "manifest"]
    assert named.uri.endswith(f"/evidence/acme/{named.sha256}.manifest.json")
    manifest = read_manifest(decided, store)
    assert manifest == manifest_of(made(), store, GROUNDS, "2" * 64)


def test_it_is_json_with_sorted_keys_under_its_own_digest(store: BreakableStore) -> None:
    named = with_manifest(made(), store, GROUNDS).evidence[-1]
    data = store.get_uri(named.uri)
    assert hashlib.sha256(data).hexdigest() == named.sha256
    assert orjson.dumps(json.loads(data), option=orjson.OPT_SORT_KEYS) == data


def test_it_says_what_the_verdict_rests_on(store: BreakableStore) -> None:
    decided = made()
    manifest = manifest_of(decided, store, GROUNDS, "2" * 64)
    assert manifest.content is not None
    assert manifest.content.sha256 == facts().sha256
    assert manifest.content.uri == store.content_uri("acme", facts().sha256)
    assert manifest.evidence == decided.evidence
    assert manifest.spectral == GROUNDS
    assert (manifest.mode, manifest.thresholds) == (decided.mode, decided.thresholds)
    assert (manifest.versions.bundle, manifest.versions.policy, manifest.versions.dialogue) == ("b1", "p1", "2" * 64)
    assert manifest.versions.models == {StageName.CLASSIFIER: "m", StageName.SPECTRAL: "m"}
    assert manifest.times.admitted_at == decided.admission.admitted_at
    assert manifest.times.decided_at == decided.decided_at


def test_the_original_that_a_decision_names_is_its_content(store: BreakableStore) -> None:
    original = EvidenceRef(kind="original", uri="memory:///content/acme/y", sha256="3" * 64)
    manifest = manifest_of(made().model_copy(update={"facts": None, "evidence": (original,)}), store)
    assert manifest.content is not None
    assert (manifest.content.uri, manifest.content.sha256) == (original.uri, original.sha256)


def test_what_was_never_fetched_has_no_content(store: BreakableStore) -> None:
    assert manifest_of(decision(Outcome.ESCALATE), store).content is None


def test_a_decision_without_one_has_none(store: BreakableStore) -> None:
    assert read_manifest(decision(), store) is None


def test_a_later_releases_fields_are_ignored(store: BreakableStore) -> None:
    fields = json.loads(manifest_of(made(), store, GROUNDS).encoded())
    fields["added"] = fields["versions"]["added"] = 1
    assert Manifest.decoded(json.dumps(fields).encode()) == manifest_of(made(), store, GROUNDS)


@pytest.mark.parametrize(
    ("data", "place"), [(b"{", "JSON"), (b"{}", "decision_uid"), (b'{"v": 2}', "v"), (b"\xff", "JSON")]
)
def test_what_is_no_manifest_is_corrupt(data: bytes, place: str) -> None:
    with pytest.raises(ContentCorrupt, match=f"not a decision's manifest: {place}: "):
        Manifest.decoded(data)


def test_one_that_is_gone_or_changed_is_seen(store: BreakableStore) -> None:
    decided = with_manifest(made(), store)
    key = store.key_of(decided.evidence[-1].uri)
    store.objects.replace(key, b"{}")
    with pytest.raises(ContentCorrupt):
        read_manifest(decided, store)
    store.delete(key)
    with pytest.raises(ContentMissing):
        read_manifest(decided, store)
