"""What was kept of a pass for the audit sample: an erasure, a hold and the sweep reach it through the stages' notes."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.evidence.archive import LIVE, media_digest
from pipeline.evidence.erasure import ErasureRefused
from pipeline.evidence.erasure_plan import ErasurePlan
from pipeline.evidence.payload import payloads_of
from pipeline.evidence.request import erase_media, plan_request
from pipeline.evidence.sampled import SAMPLED, SampledPayloads
from pipeline.evidence.sweep import sweep
from pipeline.media.errors import ContentCorrupt, ContentErased, StoreUnavailable
from pipeline.streaming.stage import Emit
from schemas.decision import Decision, Outcome
from schemas.erasure import ErasureCause
from schemas.media import EvidenceRef, MediaReference, SuspectMedia
from schemas.topics import Topic
from tests.support.cases import anomalous
from tests.support.entries import item
from tests.support.evidence import T0, BrokenJournal, Crash, Desk
from tests.support.evidence_files import put_at
from tests.support.worker_stages import DATA, PANEL_PNG, FakedClassifier, FakedMllm, use_store
from workers.classifier.audit_sample import AuditSampleSettings

AGE = timedelta(days=45)


def sampled(desk: Desk, media_id: str = "m1", content: bytes = b"drawn", panel: bytes = b"its panel") -> Decision:
    """As the stages leave it: bytes and panel without an archived decision, and notes of both."""
    made = desk.decide(media_id, Outcome.ESCALATE, content=content, panel=panel, archived=False)
    SampledPayloads(desk.store.objects).note("acme", media_digest(media_id), payloads_of(made))
    return made


def erase(desk: Desk, media_id: str = "m1") -> ErasurePlan:
    plan, _ = erase_media(desk.archive, desk.eraser, "acme", media_id, actor="dpo", reason="request 1")
    return plan


def below(desk: Desk, *prefixes: str) -> list[str]:
    return sorted(o.key for prefix in prefixes for o in desk.store.objects.list(prefix))


def test_a_request_reaches_the_bytes_of_a_sampled_pass_and_is_announced() -> None:
    desk = Desk()
    made, other = sampled(desk), sampled(desk, "m2", b"another", b"another panel")
    erase(desk)
    assert not any(desk.readable(made)[kind] for kind in ("content", "spectral_panel"))
    assert desk.readable(other)["content"]
    (announced,) = desk.journal.announced
    assert (announced.media_id, announced.cause) == ("m1", ErasureCause.REQUEST)
    assert set(announced.sha256s) == {p.sha256 for p in payloads_of(made)}
    assert below(desk, SAMPLED) == [f"{SAMPLED}acme/{media_digest('m2')}/{p.key}" for p in payloads_of(other)], (
        "the note of the other media id stays"
    )
    with pytest.raises(ErasureRefused, match="nothing is kept"):
        erase(desk)


def test_what_a_decision_needs_stays_and_a_media_item_goes_with_all_that_is_its() -> None:
    desk = Desk()
    needed = desk.decide("m2", content=b"drawn", panel=None)
    sampled(desk)
    mine = desk.decide("m1", content=b"decided later", panel=None)
    plan = plan_request(desk.archive, desk.eraser, "acme", "m1")
    assert [p.sha256 for p in plan.kept] == [hashlib.sha256(b"drawn").hexdigest()]
    erase(desk)
    assert desk.readable(needed)["content"]
    assert not desk.readable(mine)["content"]
    assert below(desk, SAMPLED) == []


def test_a_hold_keeps_it_from_request_and_sweep_and_ends(tmp_path: Path) -> None:
    desk = Desk(url=tmp_path.as_uri())
    made = sampled(desk)
    hold = desk.holds.set("acme", "m1", "counsel", "case 12")
    with pytest.raises(ErasureRefused, match=f"legal hold {hold.hold_id}"):
        erase(desk)
    put_at(tmp_path, T0)
    desk.after(days=45)
    swept = list(sweep(desk.archive, desk.vault, desk.holds, AGE, desk.now, dry_run=False))
    assert {s.obstacle for s in swept} == {f"legal hold {hold.hold_id} on a media item of acme"}
    assert desk.readable(made)["content"]
    desk.holds.release(hold.hold_id, "counsel", "over")
    list(sweep(desk.archive, desk.vault, desk.holds, AGE, desk.now, dry_run=False))
    assert below(desk, "content", "evidence", SAMPLED) == [], "the notes go with what they are of"


def test_the_sweep_ends_it_and_keeps_the_notes_of_what_is_young(tmp_path: Path) -> None:
    desk = Desk(url=tmp_path.as_uri())
    sampled(desk)
    put_at(tmp_path, T0)
    desk.after(days=45)
    list(sweep(desk.archive, desk.vault, desk.holds, AGE, desk.now, dry_run=True))
    assert len(below(desk, "content", "evidence", SAMPLED)) == 4, "a dry run changes nothing"
    list(sweep(desk.archive, desk.vault, desk.holds, AGE, desk.now, dry_run=False))
    assert below(desk, "content", "evidence", SAMPLED) == []
    young = Desk(url=tmp_path.as_uri())
    young.now = T0
    sampled(young)
    put_at(tmp_path, T0)
    list(sweep(young.archive, young.vault, young.holds, AGE, young.now, dry_run=False))
    assert len(below(young, SAMPLED)) == 2


def test_killed_anywhere_a_repetition_ends_in_the_same_state() -> None:
    def filled() -> Desk:
        desk = Desk()
        sampled(desk)
        desk.decide("m1", content=b"decided later", panel=None)
        return desk

    def state(desk: Desk) -> set[str]:
        """Without the names of live records: `retention apply` drops those of what is marked as erased."""
        keys = {o.key for objects in (desk.store.objects, desk.key_objects) for o in objects.list("")}
        return {key for key in keys if not key.startswith(LIVE)}

    whole = filled()
    start = whole.fuse.count
    erase(whole)
    for step in range(start, whole.fuse.count):
        desk = filled()
        desk.fuse.blow_at = step
        with pytest.raises(Crash):
            erase(desk)
        desk.fuse.blow_at = None
        with suppress(ErasureRefused):  # it died after its mark
            erase(desk)
        assert state(desk) == state(whole)
        assert len({erasure.erasure_id for erasure in desk.journal.announced}) == 1, "a repetition is known as one"


def test_nothing_goes_unannounced() -> None:
    desk = Desk()
    made = sampled(desk)
    desk.eraser._journal = BrokenJournal()
    with pytest.raises(StoreUnavailable):
        erase(desk)
    assert desk.readable(made)["content"]


def test_a_note_that_is_none_is_named() -> None:
    desk = Desk()
    desk.store.objects.create(f"{SAMPLED}acme/{media_digest('m1')}/elsewhere", b"")
    with pytest.raises(ContentCorrupt, match="elsewhere: expected sampled/tenant/sha256/payload"):
        erase(desk)


def test_the_stages_note_what_they_keep_of_a_sample_and_only_of_a_sample() -> None:
    desk = Desk()
    faked = FakedClassifier(audit_sample={"share": 1.0})
    use_store(faked.stage, desk.store)
    faked.classifier.gives = 0.1
    value = MediaReference(uri="file:///x", tenant="acme", media_id="m1")
    outcome = faked.process(item(tenant="acme", media_id="m1", value=value))
    assert isinstance(outcome, Emit)
    sample = next(o.record for o in outcome.outputs if o.topic is Topic.SUSPECT)
    assert isinstance(sample, SuspectMedia)
    digest = hashlib.sha256(DATA).hexdigest()
    assert desk.store.get("acme", digest) == DATA

    last = FakedMllm()
    panel = desk.store.put_evidence("acme", PANEL_PNG, ".png")
    use_store(last.stage, desk.store)
    ref = EvidenceRef(kind="spectral_panel", uri=panel[0], sha256=panel[1])
    media = anomalous(0.9, 0.9, data=DATA, panel=ref).model_copy(
        update={
            "audit": AuditSampleSettings(share=1.0).draw(sample.admission.decision_uid),
            "admission": sample.admission,
        }
    )
    last.process(item(tenant="acme", media_id="m1", value=media))
    assert {key.rsplit("/", 1)[-1] for key in below(desk, SAMPLED)} == {
        key.rsplit("/", 1)[-1] for key in below(desk, "content", "evidence")
    }, "each object that is kept has its note"
    erase(desk)
    with pytest.raises(ContentErased):
        desk.store.get("acme", digest)
    assert below(desk, "content", "evidence", SAMPLED) == []

    plain = FakedClassifier(audit_sample={"share": 0})
    use_store(plain.stage, desk.store)
    plain.classifier.gives = 0.9
    plain.process(item(tenant="acme", media_id="m3", value=value))
    assert below(desk, SAMPLED) == []
