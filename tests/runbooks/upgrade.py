"""Rolling upgrade with another bundle, one process at a time, under load."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from tests.runbooks.count import Count
from tests.runbooks.site import NEW, OLD, Site, say, site

FLEET = ("classifier", "classifier", "spectral", "spectral", "mllm")


def rolling_upgrade(
    home: Path, names: Sequence[str] = FLEET, per_s: float = 15.0, before: int = 150, kept: Collection[str] = ()
) -> Count:
    """Each of these workers but the stages in `kept` is replaced, its successor ready first.

    At least `before` references are answered before, and as many are published after.
    """
    with site(home) as place:
        old = place.start(*names)
        place.sh(f"mediasieve bundle verify bundles/{NEW}")
        with place.load(per_s) as producer:
            producer.reaches(before)
            place.catch_up(producer)
            place.now(producer, "before")
            for worker in (w for w in old if w.member.stage not in kept):
                place.start(worker.member.stage, MEDIASIEVE_BUNDLE=f"bundles/{NEW}")
                assert worker.stop() == 0
            place.now(producer, "all replaced")
            place.catch_up(producer)
            producer.reaches(len(producer.published) + before)
        return _judge(place)


def _judge(place: Site) -> Count:
    found = place.exact()
    old = [at for at, bundle in found.bundles if bundle == OLD]
    new = [at for at, bundle in found.bundles if bundle == NEW]
    assert old
    assert new
    say(f"# by bundle of the admission: {dict(sorted(found.by_bundle.items()))}")
    say(f"# the last {OLD} decision {(max(old) - min(new)) / 1e3:+.1f} s after the first of {NEW}")
    return found
