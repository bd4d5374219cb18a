"""Drawing by decision uid."""

from __future__ import annotations

from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detection.sampling import drawn

NAMESPACE = UUID(int=7)
UIDS = [uuid5(NAMESPACE, str(n)) for n in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_drawn(share: float) -> None:
    found = sum(drawn(uid, share, "seed") for uid in UIDS)
    error = 5 * (share * (1 - share) / len(UIDS)) ** 0.5
    assert found / len(UIDS) == pytest.approx(share, abs=error)


def test_another_seed_draws_others() -> None:
    first, second = ({uid for uid in UIDS if drawn(uid, 0.1, seed)} for seed in ("a", "b"))
    overlap = len(first & second) / len(first)
    assert overlap == pytest.approx(0.1, abs=0.05)


@given(st.uuids(), st.text(min_size=1, max_size=200), st.floats(0, 1), st.floats(0, 1))
def test_the_same_are_drawn_again_and_a_larger_share_draws_them_too(uid: UUID, seed: str, a: float, b: float) -> None:
    assert drawn(uid, a, seed) == drawn(uid, a, seed)
    assert drawn(uid, max(a, b), seed) or not drawn(uid, min(a, b), seed)
    assert drawn(uid, 1.0, seed)
    assert not drawn(uid, 0.0, seed)
