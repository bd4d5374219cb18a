"""Rules for everything that makes pods. Each takes all manifests of a tree and returns its faults."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer.main

from pipeline.observability.health import HealthServer, HealthSettings, Pulse
from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import SystemClock
from tests.support.k8s import Manifest, name_of, named, ours, stages, template_of, workloads
from tests.support.k8s_settings import environment, settings_fault, settings_of
from workers.cli.main import app
from workers.console.background import Background
from workers.names import WorkerName
from workers.settings import Settings

MARGIN_S = 10
"""For the interpreter to end, and the kubelet to notice."""

CONSOLE_THREADS_S = 2 * float(inspect.signature(Background.stop).parameters["timeout_s"].default) + 20.0
"""Its two threads, then the producer's flush."""

_TRIAL_BROKER = "StatefulSet/kafka"
"""Of the overlay kind; its image writes its configuration below /opt at each start."""


def hardened(manifests: list[Manifest]) -> list[str]:
    """Pod Security `restricted`, a read-only root, bounded scratch space, no token of the API, and bounds on memory."""
    faults = []
    for manifest, pod in workloads(manifests):
        context = pod.get("securityContext", {})
        found = {
            "runAsNonRoot": context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0,
            "seccompProfile": context.get("seccompProfile") == {"type": "RuntimeDefault"},
            "automountServiceAccountToken": pod.get("automountServiceAccountToken") is False,
            "enableServiceLinks": pod.get("enableServiceLinks") is False,
            "host namespaces": not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
            "volumes": all("hostPath" not in volume for volume in pod.get("volumes", [])),
            "sizeLimit": all("sizeLimit" in v["emptyDir"] for v in pod.get("volumes", []) if "emptyDir" in v),
            "initContainers": not pod.get("initContainers"),
        }
        for container in pod["containers"]:
            found |= _hardened_container(container, name_of(manifest) == _TRIAL_BROKER)
        faults += [f"{name_of(manifest)}: {rule}" for rule, kept in found.items() if not kept]
    return faults


def _hardened_container(container: Manifest, writable_root: bool) -> dict[str, bool]:
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    return {
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "privileged": not context.get("privileged"),
        "readOnlyRootFilesystem": writable_root or context.get("readOnlyRootFilesystem") is True,
        "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "requests": {"cpu", "memory"} <= resources.get("requests", {}).keys(),
        "limits": "memory" in resources.get("limits", {}),
    }


def pinned(manifests: list[Manifest]) -> list[str]:
    """Images by a tag that means one release, or by digest."""
    exact = re.compile(r"^[^:@]+(:v?\d+\.\d+\.\d+(-[a-z0-9.]+)?)?(@sha256:[0-9a-f]{64})?$")
    return [
        f"{name_of(manifest)}: {container['image']}"
        for manifest, pod in workloads(manifests)
        for container in pod["containers"]
        if not exact.match(container["image"]) or not re.search("[:@]", container["image"])
    ]


def configured(manifests: list[Manifest]) -> list[str]:
    """The process would start: every variable is a setting, every value allowed, production's demands are met."""
    return [
        f"{name_of(manifest)}: {fault}"
        for manifest, _, container in ours(manifests)
        if (fault := settings_fault(manifests, container)) is not None
    ]


def mounted(manifests: list[Manifest]) -> list[str]:
    """Every file that a setting names lies on a mount, every mount has its volume and every volume its mount."""
    faults = []
    for manifest, pod, container in ours(manifests):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"] for volume in pod["volumes"]}
        if set(mounts.values()) != volumes:
            faults.append(f"{name_of(manifest)}: mounts {sorted(mounts.values())}, volumes {sorted(volumes)}")
        for variable, value in environment(manifests, container).items():
            paths = re.findall(r"(?<![\w:/])/(?:etc/mediasieve|models|monitoring)/[\w./-]+", value)
            faults += [
                f"{name_of(manifest)}: {variable}: nothing is mounted at {path}"
                for path in paths
                if not any(path.startswith(f"{at}/") for at in mounts)
            ]
    return faults


def commands_exist(manifests: list[Manifest]) -> list[str]:
    """Commands, arguments and options are those of the command line."""
    return [
        f"{name_of(manifest)}: {fault}"
        for manifest, _, container in ours(manifests)
        if (fault := _unknown_word(list(container["args"]))) is not None
    ]


def _unknown_word(words: list[str]) -> str | None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        word = words.pop(0)
        if word not in command.commands:
            return f"no command {word!r}"
        command = command.commands[word]
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    arguments = [parameter for parameter in command.params if not parameter.opts[0].startswith("--")]
    positional = [word for word in words if not word.startswith("--")]
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
    if unknown or len(positional) > len(arguments):
        return f"{command.name} does not take {unknown or positional}"
    if command.name == "worker" and not {*positional} <= {*WorkerName}:
        return f"no worker {positional}"
    return None


def probed(manifests: list[Manifest]) -> list[str]:
    """Ports are those of the settings; probes ask paths that the health endpoint answers; a start has time."""
    faults = []
    server = HealthServer(HealthSettings(), Pulse(SystemClock()), Metrics())
    try:
        for name, manifest, _, container in stages(manifests):
            wanted = _ports(name, settings_of(manifests, container))
            if {port["name"]: port["containerPort"] for port in container["ports"]} != wanted:
                faults.append(f"{name_of(manifest)}: ports {container['ports']}, the settings say {wanted}")
            for kind, path in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
                get = container.get(kind, {}).get("httpGet", {})
                answered = server.answer(get.get("path", ""))[0] != 404
                if get != {"path": path, "port": "health"} or not answered:
                    faults.append(f"{name_of(manifest)}: {kind} asks {get}")
            startup = container.get("startupProbe", {})
            if startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3) < 120:
                faults.append(f"{name_of(manifest)}: less than 2 minutes to load a model")
    finally:
        server._server.server_close()  # it was never started, so there is nothing to stop
    return faults


def _ports(name: str, settings: Settings) -> dict[str, int]:
    ports = {"health": settings.health.port}
    match name:
        case "gateway":
            ports["http"] = settings.gateway.port
        case "console":
            ports["http"] = settings.console.port
    return ports


def drains(manifests: list[Manifest]) -> list[str]:
    """SIGKILL comes after the worker had the time that its settings give it."""
    faults = []
    for name, manifest, pod, container in stages(manifests):
        pre_stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = pre_stop + _drain_s(name, settings_of(manifests, container)) + MARGIN_S
        if pod.get("terminationGracePeriodSeconds", 30) < needed:
            faults.append(f"{name_of(manifest)}: terminationGracePeriodSeconds is less than {needed:g}")
    return faults


def _drain_s(name: str, settings: Settings) -> float:
    runner, gateway = settings.runner, settings.gateway
    match name:
        case "gateway":  # open requests, acknowledgements (flush, thread), then the two threads
            return gateway.drain_s + 2 * gateway.ack_timeout_s + 2 * gateway.drain_s
        case "console":
            return settings.console.drain_s + CONSOLE_THREADS_S
        case "audit":  # one flush at most is on its way
            return settings.audit.backoff_max_s + runner.commit_timeout_s
        case "adaptation":
            return settings.references.sample_timeout_s
        case "mllm" if settings.mllm.openai is not None:
            return max(runner.drain_timeout_s, settings.mllm.openai.timeout_s) + runner.commit_timeout_s
        case _:
            return runner.drain_timeout_s + runner.commit_timeout_s


def spread(manifests: list[Manifest]) -> list[str]:
    """Deployments are spread and let go one at a time; each has a Service for its metrics and an account of its own."""
    faults = []
    for manifest in named(manifests, "Deployment"):
        name, template = manifest["metadata"]["name"], template_of(manifest)
        labels = template["metadata"]["labels"]
        selectors = [c["labelSelector"]["matchLabels"] for c in template["spec"].get("topologySpreadConstraints", [])]
        budgets = named(manifests, "PodDisruptionBudget", name)
        services = named(manifests, "Service", name)
        account = template["spec"].get("serviceAccountName", "default")
        found = {
            "topologySpreadConstraints": bool(selectors) and all(s.items() <= labels.items() for s in selectors),
            "PodDisruptionBudget": [b["spec"]["maxUnavailable"] for b in budgets] == [1]
            and all(b["spec"]["selector"]["matchLabels"].items() <= labels.items() for b in budgets),
            "Service": len(services) == 1 and all(s["spec"]["selector"].items() <= labels.items() for s in services),
            "targetPort": {p["targetPort"] for s in services for p in s["spec"]["ports"]}
            == {p["name"] for c in template["spec"]["containers"] for p in c["ports"]},
            "serviceAccountName": account == name and len(named(manifests, "ServiceAccount", account)) == 1,
            "selector": manifest["spec"]["selector"]["matchLabels"].items() <= labels.items(),
        }
        faults += [f"{name_of(manifest)}: {rule}" for rule, kept in found.items() if not kept]
    return faults


def roomy(manifests: list[Manifest]) -> list[str]:
    """As many uploads as the gateway takes at once fit into its /tmp; else the kubelet evicts the pod under load."""
    faults = []
    for name, manifest, pod, container in stages(manifests):
        if name != "gateway":
            continue
        (mount,) = [m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/tmp"]
        (limit,) = [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == mount]
        gateway = settings_of(manifests, container).gateway
        if _bytes(limit) <= gateway.uploads_open * gateway.max_upload_bytes:
            faults.append(
                f"{name_of(manifest)}: {limit} for {gateway.uploads_open} of {gateway.max_upload_bytes} bytes"
            )
    return faults


def _bytes(quantity: str) -> int:
    """Kubernetes writes binary multiples; `Mi` and `Gi` are all that this tree uses."""
    return int(quantity[:-2]) * {"Mi": 2**20, "Gi": 2**30}[quantity[-2:]]


def whole_cores(manifests: list[Manifest]) -> list[str]:
    """Spectral pods are Guaranteed with whole CPUs, and no more processes than CPUs."""
    faults = []
    for name, manifest, _, container in stages(manifests):
        if name != "spectral":
            continue
        resources, processes = container["resources"], settings_of(manifests, container).spectral.processes
        cpu = str(resources["limits"].get("cpu"))
        if resources["requests"] != resources["limits"] or not cpu.isdigit() or processes > int(cpu):
            faults.append(f"{name_of(manifest)}: {resources} for {processes} processes")
    return faults
