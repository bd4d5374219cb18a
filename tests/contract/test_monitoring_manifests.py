"""The CronJobs call commands that exist, are hardened, and do not repeat what is no failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from workers.cli.findings import EXIT_FOUND
from workers.cli.main import app

FOLDER = Path(__file__).parents[2] / "deploy/k8s/base/jobs"
REPORTS = ("weekly", "audit-sample", "drift")
JOBS: list[dict[str, Any]] = [yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) for name in REPORTS]
each_job = pytest.mark.parametrize("job", JOBS, ids=lambda job: job["metadata"]["name"])


def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def test_there_is_a_job_for_each_report() -> None:
    assert [job["metadata"]["name"] for job in JOBS] == [
        "mediasieve-weekly",
        "mediasieve-audit-sample",
        "mediasieve-drift",
    ]
    assert {job["kind"] for job in JOBS} == {"CronJob"}


@each_job
def test_its_command_and_options_exist(job: dict[str, Any]) -> None:
    (container,) = pod(job)["containers"]
    assert container["command"] == ["mediasieve"]
    words = list(container["args"])
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word.partition("=")[0] for word in words} <= options
    assert all(word.startswith("--") for word in words)


@each_job
def test_it_is_hardened(job: dict[str, Any]) -> None:
    spec = pod(job)
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= set(container["resources"])
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@each_job
def test_one_runs_at_a_time_and_an_alarm_is_not_run_again(job: dict[str, Any]) -> None:
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    spec = job["spec"]["jobTemplate"]["spec"]
    assert spec["backoffLimit"] >= 1, "a broker that is away for a moment costs no run"
    found = [rule for rule in spec.get("podFailurePolicy", {}).get("rules", ()) if rule["action"] == "FailJob"]
    codes = [code for rule in found for code in rule["onExitCodes"]["values"]]
    assert codes == ([] if job["metadata"]["name"] == "mediasieve-audit-sample" else [EXIT_FOUND])
    assert pod(job)["restartPolicy"] == "Never", "the policy needs it"
