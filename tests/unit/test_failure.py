"""When too many dead letters mean that the fleet, not the input, is broken."""

from __future__ import annotations

import pytest

from pipeline.streaming.failure import DeadLetterLimitExceeded, DeadLetterLimits, OwnRejects, SourceRate

PLACE = ("spectral", "media.suspect", 3, 17, "schema_invalid")


def rejects(max_consecutive: int = 100, max_ratio: float = 0.5, window: int = 10) -> OwnRejects:
    limits = DeadLetterLimits(max_consecutive=max_consecutive, max_ratio=max_ratio, window=window)
    return OwnRejects(limits)


def feed(own: OwnRejects, pattern: str) -> None:
    for mark in pattern:
        if mark == ".":
            own.good()
        else:
            own.bad(*PLACE)


def test_the_stop_names_the_place_the_code_and_the_way_out() -> None:
    with pytest.raises(DeadLetterLimitExceeded) as caught:
        feed(rejects(max_consecutive=1), "x")
    text = str(caught.value)
    assert "media.suspect[3]@17 with code schema_invalid" in text
    assert "deadletter accept --stage spectral --topic media.suspect --partition 3 --until OFFSET" in text


def test_rejects_in_a_row_stop_at_the_limit() -> None:
    own = rejects(max_consecutive=3)
    feed(own, "xx")
    with pytest.raises(DeadLetterLimitExceeded, match=r"^3 rejects in a row"):
        feed(own, "x")


def test_a_good_record_ends_the_row() -> None:
    feed(rejects(max_consecutive=3, max_ratio=1.0), "xx.xx.xx.")


def test_the_share_counts_only_over_a_full_window() -> None:
    own = rejects()
    feed(own, "x.x.x.x.x")
    with pytest.raises(DeadLetterLimitExceeded, match="50% of the last 10"):
        feed(own, ".x")


def test_a_share_below_the_limit_goes_on() -> None:
    feed(rejects(), "xxxx......" * 5)


def test_what_left_the_window_is_forgotten() -> None:
    own = rejects()
    feed(own, "xxxx" + "." * 10)
    feed(own, "xxxx")


def rate(per_minute: int) -> SourceRate:
    return SourceRate(DeadLetterLimits(source_full_per_minute=per_minute))


def test_a_source_may_fill_its_rate_at_once() -> None:
    bucket = rate(3)
    assert [bucket.may_keep_all("a", 0.0) for _ in range(5)] == [True, True, True, False, False]


def test_tokens_come_back_evenly_and_no_more_than_the_rate() -> None:
    bucket = rate(2)
    for _ in range(2):
        bucket.may_keep_all("a", 0.0)
    assert not bucket.may_keep_all("a", 29.0)
    assert bucket.may_keep_all("a", 60.0)
    assert [bucket.may_keep_all("a", 9999.0) for _ in range(3)] == [True, True, False]


def test_refused_letters_cost_no_tokens() -> None:
    bucket = rate(1)
    assert bucket.may_keep_all("a", 0.0)
    for second in range(1, 60):
        assert not bucket.may_keep_all("a", float(second))
    assert bucket.may_keep_all("a", 60.5)


def test_sources_do_not_share_a_bucket() -> None:
    bucket = rate(1)
    assert bucket.may_keep_all("a", 0.0)
    assert bucket.may_keep_all("b", 0.0)


def test_the_source_seen_longest_ago_is_forgotten_first() -> None:
    bucket = rate(1)
    bucket.may_keep_all("old", 0.0)
    for i in range(SourceRate.MAX_SOURCES - 1):
        bucket.may_keep_all(f"s{i}", 0.0)
    bucket.may_keep_all("old", 0.0)
    bucket.may_keep_all("one too many", 0.0)
    assert not bucket.may_keep_all("old", 0.0), "it was seen after s0"
    assert bucket.may_keep_all("s0", 0.0), "forgotten, so it begins with a full bucket"
