"""The trees below deploy/k8s as Python objects: read file by file, or rendered where a kustomize is at hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "k8s"
BASE = DEPLOY / "base"
OVERLAYS = DEPLOY / "overlays"
COMPONENTS = DEPLOY / "components"
SCHEMAS = Path(__file__).parent / "k8s_schemas"
VERSIONS = ("1.30", "1.37")
"""Kubernetes releases: the oldest that the manifests need (preStop sleep), the newest with bundled schemas."""

WITH_PODS = frozenset({"Deployment", "StatefulSet", "Job", "CronJob"})
NO_TOOL = "neither `kubectl` nor `kustomize` is on PATH, so no overlay can be rendered"


def load(path: Path) -> list[Manifest]:
    """All documents of one file."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def kustomizations() -> list[Path]:
    """Every directory that has one."""
    return sorted(path.parent for path in DEPLOY.rglob("kustomization.yaml"))


def read_tree(directory: Path) -> list[Manifest]:
    """What a kustomization adds up to before its patches, with its generated ConfigMaps under their plain names."""
    (kustomization,) = load(directory / "kustomization.yaml")
    found: list[Manifest] = []
    for name in (*kustomization.get("resources", []), *kustomization.get("components", [])):
        target = (directory / name).resolve()
        found += read_tree(target) if target.is_dir() else load(target)
    for generator in kustomization.get("configMapGenerator", []):
        if generator.get("behavior", "create") == "create":
            found.append(_config_map(directory, generator))
    return found


def _config_map(directory: Path, generator: Manifest) -> Manifest:
    data: dict[str, str] = {}
    for name in generator.get("envs", []):
        lines = (directory / name).read_text(encoding="utf-8").splitlines()
        data |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    for name in generator.get("files", []):
        data[name] = (directory / name).read_text(encoding="utf-8")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}


def renderer() -> list[str] | None:
    """The command that renders a directory; None where there is none."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


@cache
def _rendered(directory: Path) -> str:
    command = renderer()
    assert command is not None, NO_TOOL
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(directory: Path) -> list[Manifest]:
    """What would be applied; fresh objects at each call."""
    return [document for document in yaml.safe_load_all(_rendered(directory)) if document]


@cache
def _schema(kind: str) -> jsonschema.Draft202012Validator | None:
    path = SCHEMAS / f"{kind.lower()}.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def invalid(manifest: Manifest) -> tuple[str, ...]:
    """What the API server would refuse, as far as schemas tell; unknown fields count."""
    return _invalid(json.dumps(manifest, sort_keys=True))


@cache
def _invalid(text: str) -> tuple[str, ...]:
    """Most manifests are the same in several trees."""
    manifest: Manifest = json.loads(text)
    custom = _schema(manifest["kind"])
    if custom is not None:
        return tuple(f"{error.json_path}: {error.message}" for error in custom.iter_errors(manifest))
    faults = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"{version}: {error.message}")
    return tuple(faults)


def named(manifests: list[Manifest], kind: str, name: str | None = None) -> list[Manifest]:
    """Those of a kind, or the one of that name."""
    return [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]


def name_of(manifest: Manifest) -> str:
    """`Kind/name`, for messages."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def template_of(workload: Manifest) -> Manifest:
    """The pod template of anything that has one."""
    spec: Manifest = workload["spec"]
    if workload["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template: Manifest = spec["template"]
    return template


def workloads(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Everything that makes pods, with its pods' spec."""
    for manifest in manifests:
        if manifest["kind"] in WITH_PODS:
            yield manifest, template_of(manifest)["spec"]


def ours(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest, Manifest]]:
    """Workloads that run the command line `mediasieve`: manifest, pod spec, container."""
    for manifest, pod in workloads(manifests):
        for container in pod["containers"]:
            if container.get("command") == ["mediasieve"]:
                yield manifest, pod, container


def stages(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest, Manifest]]:
    """Deployments of `mediasieve worker NAME`: name, manifest, pod spec, container."""
    for manifest, pod, container in ours(manifests):
        if container["args"][0] == "worker":
            yield container["args"][1], manifest, pod, container
