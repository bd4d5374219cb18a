"""The model server goes away and comes back."""

from __future__ import annotations

import time
from pathlib import Path

import orjson

from schemas.topics import Topic
from tests.runbooks.count import Count
from tests.runbooks.site import STAGES, Site, Worker, say, site
from tests.support.mllm_fault_server import MODEL, FaultServer, running
from tests.support.mllm_ports import held_port

OUTAGE_S = 25.0
_SERIES = "mediasieve_(mllm_circuit|lag_records|defers_total)"
_METRICS = f"curl -s localhost:{{port}}/metrics | grep -E '^{_SERIES}' | grep -v ' 0.0'"


def mllm_outage(home: Path) -> None:
    """Refused connections for OUTAGE_S, under load; the two stages before it go on."""
    with held_port() as port:
        server = orjson.dumps({"base_url": f"http://127.0.0.1:{port}/v1", "model": MODEL}).decode()
        settings = {"MEDIASIEVE_MLLM__BACKEND": "openai", "MEDIASIEVE_MLLM__OPENAI": server}
        with site(home, settings) as place:
            with running(FaultServer(), port):
                workers = place.start(*STAGES)
                with place.load(10.0, "before") as producer:
                    producer.reaches(100)
                say(f"# {place.settle().line(place.published)}")
            say("# the model server is stopped")
            with place.load(10.0, "outage") as producer:
                producer.reaches(int(OUTAGE_S * 10))
                found = place.now(producer, f"{OUTAGE_S:g} s later")
                _look(place, workers[-1], found)
            with running(FaultServer(), port):
                say("# the model server is back")
                started_s = time.monotonic()
                found = place.exact()
                say(f"# all answered {time.monotonic() - started_s:.1f} s after")
            say(f"# reasons: {dict(found.by_reason.most_common())}")
            assert not found.by_topic[Topic.DEAD_LETTER]


def _look(place: Site, mllm: Worker, found: Count) -> None:
    say(f"# answered of those sent in the outage: {sum(m.startswith('outage') for m in found.by_media)}")
    place.sh("python -m tests.runbooks.admin lag mllm")
    place.sh(_METRICS.format(port=mllm.member.port))
    place.sh("grep -h mllm_circuit logs/mllm-1/mllm-0.log | tail -1 | cut -c1-200")
    mllm.fleet.check()
