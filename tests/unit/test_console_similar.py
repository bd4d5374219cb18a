"""Past cases whose picture looks alike: which are found, which never, and how their hashes are made."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import insert, select

from pipeline.media.errors import StoreUnavailable
from schemas.review import Label
from tests.support.consoles import OTHER_TENANT, Office, facts, photograph
from tests.support.explaining import TENANT
from tests.support.mllm import encoded
from tests.support.pages import Browser, New, desk_fixture, new_fixture  # noqa: F401 - fixtures
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from workers.console.web.app import create_app
from workers.console.web.fingerprints import Fingerprinter
from workers.console.web.similar import RADIUS_BITS, distances
from workers.console.web.tables import FINGERPRINTS

NOBODY_YET = "No closed case has a picture that looks alike."


def saved_anew(quality: int = 60) -> bytes:
    """The photograph of these tests, half as large and compressed harder."""
    image = Image.open(io.BytesIO(photograph()))
    return encoded(image.resize((700, 500)), "JPEG", quality=quality)


def other_picture(seed: int = 1) -> bytes:
    """Soft clouds, of no likeness to the photograph."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return encoded(Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC), "JPEG", quality=90)


def decided(desk: Office, case: str, label: Label = Label.PHOTOGRAPH, family: str | None = None) -> str:
    """Closed by two reviewers, as four eyes want it."""
    for reviewer in ("x", "y"):
        claim = desk.desk.service.claim(reviewer, None, case)
        assert claim is not None
        if desk.desk.service.decide(claim.token, label, "", reviewer=reviewer, family=family).closed:
            return case
    raise AssertionError("two answers alike close a case")


def taken(desk: Office, media_id: str, original: bytes, tenant: str = TENANT) -> str:
    size = Image.open(io.BytesIO(original)).size
    decision = desk.case(media_id, original=original, facts=facts(original, *size)).escalated()
    if tenant != TENANT:
        assert decision.facts is not None
        desk.store.put(tenant, decision.facts.sha256, original)
    return desk.take(decision, tenant)


def alike(desk: Office, case: str, tenants: frozenset[str] | None = None) -> tuple[list[tuple[str, int | None]], str]:
    told = desk.desk.similar.of(desk.desk.service.case(case, tenants), tenants)
    return [(one.row.case_id, one.bits) for one in told.found], told.said


def test_the_nearest_closed_cases_come_with_their_verdicts(desk: Office) -> None:
    app = create_app(desk.desk)
    desk.hire("ana")
    near = decided(desk, taken(desk, "img-near", saved_anew()), Label.GENERATED, "flux")
    far = decided(desk, taken(desk, "img-far", other_picture()))
    theirs = decided(desk, taken(desk, "img-theirs", saved_anew(), OTHER_TENANT))
    taken(desk, "img-open", saved_anew(50))
    same = decided(desk, desk.escalated("img-same"))
    case = desk.escalated("img-new")
    with Browser(app) as browser:
        before = browser.log_in("ana").get(f"/cases/{case}").text
        assert "not compared yet" in before
        assert "img-same" in before, "the same bytes need no hash"
        desk.desk.images.open()
        while desk.desk.fingerprints.turn()[0]:
            pass
        desk.desk.images.close()
        page = browser.get(f"/cases/{case}").text
    (first, none), (second, bits) = alike(desk, case, frozenset({TENANT}))[0]
    assert (first, none, second) == (same, None, near)
    assert bits is not None
    assert bits <= 22
    section = page[page.index('id="similar"') :].partition("<details>")[0]
    assert section.index("img-same") < section.index("img-near")
    assert "the same file" in section
    assert f"the same picture, saved anew: {bits} of 256 bits differ · named flux" in section
    assert 'class="tag generated"' in section
    for absent in ("img-far", "img-theirs", "img-open"):
        assert absent not in section
    assert {one for one, _ in alike(desk, case)[0]} == {same, near, theirs}
    assert [one for one, _ in alike(desk, theirs, frozenset({OTHER_TENANT}))[0]] == []
    assert far not in {one for one, _ in alike(desk, case)[0]}


def noted(desk: Office, case: str, dhash: bytes | None) -> str:
    """As if the thread had come to it."""
    view = desk.desk.service.case(case, None)
    assert view.decision.facts is not None
    with desk.intake._engine.begin() as connection:  # the office's own database
        values = {"tenant": view.row.tenant, "content_sha256": view.decision.facts.sha256, "dhash": dhash}
        connection.execute(insert(FINGERPRINTS).values(values))
    return case


def differing(bits: int) -> bytes:
    return ((1 << bits) - 1).to_bytes(32, "big")


def test_only_what_lies_within_the_radius_is_alike(desk: Office) -> None:
    case = noted(desk, taken(desk, "img-0", other_picture(0)), differing(0))
    found = {
        bits: noted(desk, decided(desk, taken(desk, f"img-{bits}", other_picture(bits))), differing(bits))
        for bits in (RADIUS_BITS + 1, RADIUS_BITS, 1)
    }
    assert alike(desk, case) == ([(found[1], 1), (found[RADIUS_BITS], RADIUS_BITS)], "")


def test_a_picture_that_says_nothing_is_like_no_other(desk: Office) -> None:
    case = noted(desk, taken(desk, "img-0", other_picture(0)), None)
    noted(desk, decided(desk, taken(desk, "img-1", other_picture(1))), None)
    assert alike(desk, case) == (
        [],
        "Its picture cannot be compared: it is gone, cannot be decoded, or is nearly of one colour.",
    )


def test_a_gold_item_does_not_lead_to_its_own_answer(desk: Office) -> None:
    original = decided(desk, desk.escalated())
    view = desk.desk.service.case(original, None)
    desk.desk.service.add_gold(view.row.decision_uid, Label.PHOTOGRAPH, "chief")
    assert alike(desk, original)[0] == []
    copy = view.model_copy(update={"row": view.row.model_copy(update={"case_id": "gold"})})
    assert desk.desk.similar.of(copy, None).found == ()


def test_distances_are_the_number_of_bits() -> None:
    assert distances(differing(3), [differing(3), differing(10), bytes([255] * 32)]).tolist() == [0, 7, 253]


def kept(desk: Office) -> list[bytes | None]:
    with desk.intake._engine.begin() as connection:  # the office's own database
        return list(connection.scalars(select(FINGERPRINTS.c.dhash)))


def test_what_cannot_be_a_picture_is_tried_once(desk: Office) -> None:
    flat = encoded(Image.new("RGB", (640, 480), (90, 90, 90)), "JPEG")
    desk.take(desk.case("img-1", original=b"no picture", facts=facts(b"no picture")).escalated())
    taken(desk, "img-2", flat)
    gone = taken(desk, "img-3", other_picture())
    view = desk.desk.service.case(gone, None)
    assert view.decision.facts is not None
    assert desk.store.keys is not None
    desk.store.keys.destroy(TENANT, view.decision.facts.sha256)
    decided(desk, desk.escalated("img-4"))
    desk.escalated("img-5")  # of the same bytes: one entry is enough
    desk.desk.images.open()
    assert desk.desk.fingerprints.turn() == (4, 4)
    assert desk.desk.fingerprints.turn() == (0, 0)
    desk.desk.images.close()
    assert sorted(dhash is None for dhash in kept(desk)) == [False, True, True, True]


def test_a_store_that_is_away_is_asked_again_and_holds_nothing_up(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = taken(desk, "img-1", other_picture(1))
    desk.escalated("img-2")
    view = desk.desk.service.case(away, None)
    assert view.decision.facts is not None
    get, missing = desk.store.get, {view.decision.facts.sha256}

    def failing(tenant: str, sha256: str) -> bytes:
        if sha256 in missing:
            raise StoreUnavailable("no answer")
        return get(tenant, sha256)

    monkeypatch.setattr(desk.store, "get", failing)
    prints: Fingerprinter = desk.desk.fingerprints
    desk.desk.images.open()
    assert prints.turn() == (2, 1)
    assert prints._pause_s() > 5.0
    assert len(kept(desk)) == 1
    missing.clear()
    assert prints._pause_s() == 0.0
    desk.desk.images.close()
    assert len(kept(desk)) == 2
