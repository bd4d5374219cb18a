"""The Grafana dashboard's own queries against a real Prometheus, drawn: `python -m tests.support.dashboard_live`."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.waiting import wait_until

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"

Series = list[tuple[str, list[float], list[float]]]
"""Legend, seconds since the epoch, values."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str

    def ask(self, path: str, **parameters: str | float) -> Any:
        """Data of its HTTP API; raises HTTPError with the cause in its body."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10.0) as answer:
            return json.load(answer)["data"]

    def panel(self, panel: Mapping[str, Any], start_s: float, end_s: float, step_s: float) -> Series:
        """Every target of a panel over a time."""
        found: Series = []
        for target in panel["targets"]:
            asked = {"query": target["expr"], "start": start_s, "end": end_s, "step": step_s}
            for one in self.ask("query_range", **asked)["result"]:
                points = [(float(t), float(v)) for t, v in one["values"]]
                name = _legend(target["legendFormat"], one["metric"])
                found.append((name, [t for t, _ in points], [v for _, v in points]))
        return found


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern


def panels() -> Sequence[Mapping[str, Any]]:
    """Of the dashboard in deploy/monitoring."""
    found: Sequence[Mapping[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return found


@contextmanager
def running_prometheus(
    binary: str, directory: Path, targets: Mapping[str, Sequence[int]], every: str = "1s"
) -> Iterator[Prometheus]:
    """Scrapes `targets` (job: ports of this machine) with the rules of deploy/monitoring.

    It picks its own port, which it logs.
    """
    jobs = [
        {"job_name": str(job), "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
        for job, ports in targets.items()
    ]
    config = {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [str(MONITORING / "alerts.yml")],
        "scrape_configs": jobs,
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        binary,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    log_path = directory / "prometheus.log"
    with log_path.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            url = f"http://127.0.0.1:{_port(server, log_path)}"
            wait_until(lambda: _ready(url), 60.0, f"prometheus to be ready at {url}")
            yield Prometheus(url)
        finally:
            server.terminate()
            server.wait(20.0)


def _port(server: subprocess.Popen[bytes], log_path: Path, timeout_s: float = 60.0) -> int:
    """The port a process listens on, as the kernel tells: version 2.42 logs 0."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if server.poll() is not None:
            break
        links = {_target(fd) for fd in Path(f"/proc/{server.pid}/fd").iterdir()}
        for line in Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in links:
                return int(columns[1].rpartition(":")[2], 16)
        time.sleep(0.05)
    raise AssertionError(f"prometheus does not listen\n{log_path.read_text()[-2000:]}")


def _ready(url: str) -> bool:
    """False while it answers 503: the database is not open yet."""
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5.0) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return ""  # closed meanwhile
