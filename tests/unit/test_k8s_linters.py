"""yamllint over deploy/k8s, and checkov over what production renders to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.k8s import DEPLOY, NO_TOOL, OVERLAYS, render, renderer

CHECKOV = shutil.which("checkov")


def _yamllint(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "yamllint", "--strict", "-c", str(DEPLOY / ".yamllint"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_yamllint_has_nothing_to_say() -> None:
    done = _yamllint(DEPLOY)
    assert (done.returncode, done.stdout) == (0, "")


def test_yamllint_refuses_a_key_twice(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: 1\na: 2\n")
    assert _yamllint(broken).returncode == 1


def _checkov(path: Path) -> subprocess.CompletedProcess[str]:
    assert CHECKOV is not None
    command = [CHECKOV, "--config-file", str(DEPLOY / ".checkov.yaml"), "--skip-download", "-f", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(CHECKOV is None, reason="`checkov` is not on PATH: `make venv-checkov` builds it")
@pytest.mark.skipif(renderer() is None, reason=NO_TOOL)
def test_checkov_refuses_only_a_broken_copy(tmp_path: Path) -> None:
    manifests = render(OVERLAYS / "production")
    whole = tmp_path / "production.yaml"
    whole.write_text(yaml.safe_dump_all(manifests))
    good = _checkov(whole)
    assert good.returncode == 0, good.stdout
    deployment = next(m for m in manifests if m["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump(deployment))
    bad = _checkov(broken)
    assert bad.returncode == 1
    assert "CKV_K8S_16" in bad.stdout
