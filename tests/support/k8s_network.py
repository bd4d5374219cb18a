"""Rules for what may talk to whom. As those of `k8s_pods`."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from tests.support.k8s import Manifest, name_of, named, ours, stages, template_of, workloads
from tests.support.k8s_settings import settings_of

_METADATA = ipaddress.ip_address("169.254.169.254")
_PRIVATE = tuple(ipaddress.ip_address(a) for a in ("10.1.2.3", "172.20.0.1", "192.168.1.1", "127.0.0.1", "100.64.0.1"))


def closed(manifests: list[Manifest]) -> list[str]:
    """Nothing comes in or goes out unless a policy names it, with its ports."""
    denies = [m["spec"] for m in named(manifests, "NetworkPolicy", "default-deny")]
    faults = []
    if denies != [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]:
        faults.append(f"NetworkPolicy/default-deny: {denies}")
    for policy in named(manifests, "NetworkPolicy"):
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            faults += [
                f"{name_of(policy)}: {direction} to everybody or every port"
                for rule in policy["spec"].get(direction, [])
                if not rule.get("ports") or not rule.get(peers) or {} in rule[peers]
            ]
    return faults


def one_way_out(manifests: list[Manifest]) -> list[str]:
    """Only the classifier reaches public addresses, and it reaches no private one and no cloud's metadata."""
    faults = []
    for policy in named(manifests, "NetworkPolicy"):
        blocks = [
            peer["ipBlock"] for rule in policy["spec"].get("egress", []) for peer in rule["to"] if "ipBlock" in peer
        ]
        public = [block for block in blocks if ipaddress.ip_network(block["cidr"]).prefixlen < 8]
        if not public:
            continue
        reached = [name for name, m, _, _ in stages(manifests) if _selects(policy, template_of(m))]
        others = [name_of(m) for m, _ in workloads(manifests) if _selects(policy, template_of(m))]
        if reached != ["classifier"] or len(others) != 1:
            faults.append(f"{name_of(policy)}: opens the internet to {others}")
        faults += [
            f"{name_of(policy)}: reaches {address}"
            for address in (_METADATA, *_PRIVATE)
            if any(_reaches(block, address) for block in public)
        ]
    return faults


def served(manifests: list[Manifest]) -> list[str]:
    """Whoever needs brokers, store, database, a model server or the internet has the label that lets it there."""
    faults = []
    for manifest, _, container in ours(manifests):
        labels = template_of(manifest)["metadata"]["labels"]
        words = container["args"]
        needs = {"kafka"} | ({"store"} if words[0] != "topics" else set())
        if words[0] == "worker":
            needs |= {"classifier": {"fetch"}, "mllm": {"model-server"}}.get(words[1], set())
            needs |= {"database", "http"} if words[1] in ("gateway", "console") else set()
        has = {key.partition("/")[2] for key in labels if key.startswith("mediasieve.io/")}
        if has != needs:
            faults.append(f"{name_of(manifest)}: labelled for {sorted(has)}, needs {sorted(needs)}")
    return faults


def traced(manifests: list[Manifest]) -> list[str]:
    """Whoever exports spans reaches the collector's namespace at the endpoint's port."""
    faults = []
    for manifest, _, container in ours(manifests):
        trace = settings_of(manifests, container).trace
        if trace.exporter != "otlp":
            continue
        endpoint = urlsplit(trace.endpoint)
        namespace = (endpoint.hostname or "").split(".")[1:2]
        open_to = [
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            for policy in named(manifests, "NetworkPolicy")
            if _selects(policy, template_of(manifest))
            for rule in policy["spec"].get("egress", [])
            if endpoint.port in [port["port"] for port in rule["ports"]]
            for peer in rule["to"]
            if "namespaceSelector" in peer
        ]
        if not namespace or namespace != open_to:
            faults.append(f"{name_of(manifest)}: spans go to {trace.endpoint}, the policies let it to {open_to}")
    return faults


def watched(manifests: list[Manifest]) -> list[str]:
    """ServiceMonitors find the health port of every worker's Service."""
    faults = []
    for monitor in named(manifests, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        endpoints = [(e.get("port"), e.get("path")) for e in monitor["spec"]["endpoints"]]
        for name, manifest, _, _ in stages(manifests):
            for service in named(manifests, "Service", manifest["metadata"]["name"]):
                ports = {port["name"] for port in service["spec"]["ports"]}
                selected = wanted.items() <= service["metadata"]["labels"].items()
                if not selected or endpoints != [("health", "/metrics")] or "health" not in ports:
                    faults.append(f"{name_of(monitor)}: does not see {name}")
    return faults


def _selects(policy: Manifest, template: Manifest) -> bool:
    wanted: dict[str, Any] = policy["spec"]["podSelector"].get("matchLabels", {})
    labels: dict[str, Any] = template["metadata"]["labels"]
    return wanted.items() <= labels.items()


def _reaches(block: Manifest, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    network = ipaddress.ip_network(block["cidr"])
    return address in network and not any(address in ipaddress.ip_network(e) for e in block.get("except", []))
