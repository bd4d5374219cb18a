"""Whatever the order of reviews, and whatever is published."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.detection.spectral.reference import SpectralReference
from schemas.reference import ReferenceArtefact
from schemas.review import Label, UpdateAction
from tests.support.learning import NOW, Site, labelled_sample, random_reference
from workers.adaptation.labels import LabelSet
from workers.adaptation.publication import BUNDLE, PublicationRefused
from workers.adaptation.records import Candidate, GateReport, LabelledSample
from workers.adaptation.store import ReferenceStore

reviews = st.lists(
    st.builds(
        lambda image, label, family, reviewer, minute: labelled_sample(
            image * 64,
            label,
            family if label is Label.GENERATED else None,
            reviewer,
            NOW + timedelta(minutes=minute),
        ),
        image=st.sampled_from("abc"),
        label=st.sampled_from(Label),
        family=st.sampled_from([None, "flux", "sdxl"]),
        reviewer=st.sampled_from(["r-1", "r-2", "r-3"]),
        minute=st.integers(0, 1000),
    ),
    max_size=12,
    unique_by=(lambda s: s.reviewed_at, lambda s: s.review_id),
)


@given(reviews, st.randoms())
def test_labels_do_not_depend_on_the_order_of_reviews(said: list[LabelledSample], random: object) -> None:
    shuffled = list(said)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    assert LabelSet.of(shuffled) == LabelSet.of(said) == LabelSet.of([*said, *said])


@given(reviews)
def test_an_image_is_agreed_on_or_disputed_but_never_both(said: list[LabelledSample]) -> None:
    found = LabelSet.of(said)
    images = [a.sample.content_sha256 for a in found.agreed]
    decided = {s.content_sha256 for s in said if s.label is not Label.UNDECIDABLE}
    assert len(images) == len(set(images))
    assert len(images) + len(found.disputed) <= len({s.content_sha256 for s in said})
    assert set(images) <= decided
    for family in ("flux", "sdxl"):
        twice, differing = found.double_reviews(family)
        assert 0 <= differing <= twice


class WithoutFiles(ReferenceStore):
    """Every artefact can be read, whatever it names."""

    def load_artefact(self, artefact: ReferenceArtefact) -> SpectralReference:
        return random_reference()


def candidate(site: Site, parent: str, number: int) -> Candidate:
    """With a version of its own and no file behind it."""
    version = f"{number:064x}"
    artefact = ReferenceArtefact(version=version, sha256=version, uri=f"memory://{number}", families=(f"f{number}",))
    gate = dict.fromkeys(GateReport.model_fields, None) | {
        "samples": 1,
        "photographs": 1,
        "suspected": 0,
        "suspected_limit": 0.0,
        "double_reviews": 0,
        "disagreements": 0,
        "disagreement_limit": 1.0,
        "controls": 0,
        "failures": (),
    }
    found = Candidate(
        version=version,
        base=site.base,
        parent=parent,
        family=f"f{number}",
        artefact=artefact,
        strata=(),
        samples=(labelled_sample(version, family=f"f{number}"),),
        left_out={},
        gate=GateReport.model_validate(gate),
        bundle_version="b1",
        built_at=site.tick(),
    )
    site.store.put_candidate(found)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["promote", "shadow", "back", "bundle", "again"]), max_size=12))
def test_the_audit_log_can_tell_which_samples_decide(steps: list[str]) -> None:
    """Adding and revoking what is told, in order, gives the families of the reference that decides."""
    site, inside = Site(), set()
    site.store = WithoutFiles(site.content.objects)
    for number, step in enumerate(steps, 1):
        head = site.publisher.head()
        deciding = head.active.version if head is not None and head.active is not None else site.base
        try:
            match step:
                case "promote":
                    site.publisher.promote(candidate(site, deciding, number), "ops", "")
                case "shadow":
                    site.publisher.shadow(candidate(site, deciding, number), "ops", "")
                case "back":
                    site.publisher.rollback(None, "ops", "")
                case "bundle":
                    site.publisher.rollback(BUNDLE, "ops", "")
                case _:
                    site.publisher.announce_again()
        except PublicationRefused:
            assert step in ("back", "again")
        for update in site.board.updates:
            (inside.add if update.action is UpdateAction.ADD else inside.discard)(update.review_id)
        site.board.updates.clear()
        assert inside == lineage(site)
    sequences = [pointer.sequence for pointer in site.publisher.history()]
    assert sequences == list(range(1, len(sequences) + 1))


def lineage(site: Site) -> set[object]:
    known = {c.version: c for c in site.store.candidates(site.base)}
    head = site.publisher.head()
    version = head.active.version if head is not None and head.active is not None else ""
    found = set()
    while version in known:
        found |= {sample.review_id for sample in known[version].samples}
        version = known[version].parent
    return found
