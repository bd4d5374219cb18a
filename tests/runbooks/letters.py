"""Dead letters: triage and replay, a producer that sends garbage, garbage on a topic of our own."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import orjson

from schemas.topics import Topic
from tests.runbooks.count import Count
from tests.runbooks.site import PARTITIONS, STAGES, Site, say, site
from tests.support.kafka import produce

GONE, OUTSIDE, TORN, FLOOD, BAD = 12, 3, 5, 4_000, 120
_LIST = "mediasieve deadletter list --json"
_BY_CODE = f"{_LIST} | jq -r '[.stage, .code, .source] | join(\" \")' | sort | uniq -c"


def dead_letters(home: Path) -> None:
    """An origin lost files, a producer named a path that is not allowed, another one tore its JSON."""
    with site(home) as place:
        place.start(*STAGES)
        with place.load(10.0) as producer:
            producer.reaches(40)
            asked = _send_bad(place)
        place.published |= asked
        before = place.settle()
        say(f"# {before.line(place.published)}")
        place.sh(_BY_CODE)
        place.sh(f"{_LIST} | jq -r 'select(.code == \"source_gone\") | .place' | head -1 | tee one")
        place.sh("mediasieve deadletter show $(cat one)", lines=30)
        for number in range(GONE):
            shutil.copy(place.files[number], place.home / "media" / f"lost-{number}.jpg")
        say("# the origin has its files again")
        select = 'select(.code == "source_gone") | .place'
        place.sh(f"{_LIST} | jq -r '{select}' | xargs mediasieve deadletter replay", lines=3)
        _replayed(place, before)


def _send_bad(place: Site) -> set[str]:
    names = [f"lost-{n}" for n in range(GONE)]
    values = [_reference(name, (place.home / "media" / f"{name}.jpg").as_uri(), "archive") for name in names]
    outside = [f"outside-{n}" for n in range(OUTSIDE)]
    values += [_reference(name, "file:///etc/hostname", "crawler") for name in outside]
    produce(place.broker.bootstrap, Topic.INGEST, values + [b'{"uri": "https://exa'] * TORN)
    return {*names, *outside}


def _reference(media_id: str, uri: str, source: str) -> bytes:
    return orjson.dumps({"uri": uri, "media_id": media_id, "source": source})


def _replayed(place: Site, before: Count) -> None:
    wanted = before.by_media.total() + GONE
    end_s = time.monotonic() + 120.0
    while (found := Count.read(place.kafka)).by_media.total() < wanted:
        assert time.monotonic() < end_s, found.by_media.total()
        time.sleep(0.5)
    say(f"# {found.line(place.published)}")
    twice = {media_id for media_id, n in found.by_media.items() if n == 2}
    assert twice == {f"lost-{n}" for n in range(GONE)}, "each has its dead letter and its decision"
    assert max(found.by_uid.values()) == 1


def producer_flood(home: Path) -> None:
    """4,000 references that nobody may fetch, of 40 kB each, from one source, amid good ones."""
    with site(home) as place:
        workers = place.start(*STAGES)
        with place.load(10.0) as producer:
            producer.reaches(50)
            flood = {f"flood-{n}" for n in range(FLOOD)}
            padding = "x" * 40_000
            values = [
                orjson.dumps({"uri": "ftp://example.org/a", "media_id": m, "source": "bad-bot", "note": padding})
                for m in sorted(flood)
            ]
            for partition in range(PARTITIONS):
                produce(place.broker.bootstrap, Topic.INGEST, values[partition::PARTITIONS], partition)
            say(f"# {FLOOD} records of 40 kB from `bad-bot`, {FLOOD * 40_000 / 1e6:.0f} MB")
            place.now(producer, "the flood is out")
            producer.reaches(len(producer.published) + 200)
            place.now(producer, "200 good ones later")
        place.published |= flood
        place.exact()
        place.sh(_BY_CODE)
        place.sh(f"{_LIST} | jq -r .value_truncated | sort | uniq -c")
        for worker in workers:
            worker.fleet.check()


def internal_garbage(home: Path) -> None:
    """Records on media.suspect that no classifier of ours writes."""
    with site(home) as place:
        _, spectral, _ = place.start(*STAGES)
        with place.load(8.0) as producer:
            producer.reaches(60)
            produce(place.broker.bootstrap, Topic.SUSPECT, [b"no suspect media"] * BAD, 0)
            say(f"# {BAD} records of garbage on media.suspect[0]")
            say(f"# spectral-1: exit {spectral.ended(120.0)}")
            place.sh("grep worker_stopped logs/spectral-1/spectral-0.log | jq -r .detail", lines=4)
            again = place.begin("spectral")
            say(f"# {again.label}: exit {again.ended(120.0)}")
            place.sh("mediasieve deadletter list")
            place.now(producer, "stage 2 is down")
        _accept(place)


def _accept(place: Site) -> None:
    end = place.sh("python -m tests.runbooks.admin ends media.suspect | head -1").rpartition(":")[2]
    accept = "mediasieve deadletter accept --stage spectral --topic media.suspect --partition 0"
    place.sh(f"{accept} --until {end} 2> accepted.log")
    place.start("spectral")
    found = place.settle()
    say(f"# {found.line(place.published)}")
    place.sh(_BY_CODE)
    assert not found.missing(place.published)
