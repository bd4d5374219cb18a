"""deploy/k8s keeps its rules, and no rule is one that cannot be broken."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.support import k8s_fleet, k8s_fleet_breaks, k8s_network, k8s_pod_breaks, k8s_pods
from tests.support.k8s import (
    BASE,
    NO_TOOL,
    OVERLAYS,
    Manifest,
    invalid,
    kustomizations,
    load,
    name_of,
    named,
    read_tree,
    render,
    renderer,
)
from tests.support.k8s_edit import Break, Rule

PRODUCTION = OVERLAYS / "production"
FILES: list[Manifest] = read_tree(PRODUCTION)
RULES: tuple[Rule, ...] = (
    k8s_pods.hardened,
    k8s_pods.pinned,
    k8s_pods.configured,
    k8s_pods.mounted,
    k8s_pods.commands_exist,
    k8s_pods.probed,
    k8s_pods.drains,
    k8s_pods.spread,
    k8s_pods.roomy,
    k8s_pods.whole_cores,
    k8s_fleet.credentials,
    k8s_fleet.brokers,
    k8s_fleet.scaling,
    k8s_fleet.time_to_live,
    k8s_network.closed,
    k8s_network.one_way_out,
    k8s_network.served,
    k8s_network.traced,
    k8s_network.watched,
)
BREAKS = (*k8s_pod_breaks.BREAKS, *k8s_fleet_breaks.BREAKS)
KAFKA_RULES: tuple[Rule, ...] = (k8s_fleet.topics_agree, k8s_fleet.least_rights)
"""For trees that bring topics and users of their own."""

each_overlay = pytest.mark.parametrize("overlay", sorted(OVERLAYS.iterdir()), ids=lambda path: path.name)
rendered = pytest.mark.skipif(renderer() is None, reason=NO_TOOL)


def rules_of(manifests: list[Manifest]) -> tuple[Rule, ...]:
    return RULES + (KAFKA_RULES if named(manifests, "Kafka") else ())


@pytest.mark.parametrize("rule", RULES + KAFKA_RULES, ids=lambda rule: rule.__name__)
def test_the_files_keep_the_rule(rule: Rule) -> None:
    assert rule(copy.deepcopy(FILES)) == []


@rendered
@each_overlay
def test_what_is_rendered_keeps_every_rule(overlay: Path) -> None:
    manifests = render(overlay)
    assert {rule.__name__: faults for rule in rules_of(manifests) if (faults := rule(manifests))} == {}


@rendered
@each_overlay
def test_what_is_rendered_is_valid(overlay: Path) -> None:
    assert {name_of(m): faults for m in render(overlay) if (faults := invalid(m))} == {}


@pytest.mark.parametrize("manifest", FILES, ids=name_of)
def test_each_file_is_valid_by_itself(manifest: Manifest) -> None:
    assert invalid(manifest) == ()


@rendered
def test_replicas_belong_to_keda_where_it_scales() -> None:
    manifests = render(PRODUCTION)
    scaled = {m["spec"]["scaleTargetRef"]["name"] for m in named(manifests, "ScaledObject")}
    numbered = {m["metadata"]["name"] for m in named(manifests, "Deployment") if "replicas" in m["spec"]}
    assert scaled
    assert not scaled & numbered


@rendered
def test_a_changed_setting_rolls_the_pods() -> None:
    (settings,) = [m for m in named(render(BASE), "ConfigMap") if "settings" in m["metadata"]["name"]]
    assert settings["metadata"]["name"] != "mediasieve-settings"  # ends with a checksum of its data


@rendered
def test_tracing_is_off_until_its_component_is_used() -> None:
    exporters = {}
    for overlay in ("production", "tracing"):
        (settings,) = [m for m in named(render(OVERLAYS / overlay), "ConfigMap") if "settings" in m["metadata"]["name"]]
        exporters[overlay] = settings["data"]["MEDIASIEVE_TRACE__EXPORTER"]
    assert exporters == {"production": "none", "tracing": "otlp"}


def test_every_manifest_is_part_of_a_kustomization() -> None:
    used: set[Path] = set()
    for directory in kustomizations():
        (kustomization,) = load(directory / "kustomization.yaml")
        names = [*kustomization.get("resources", [])]
        names += [patch["path"] for patch in kustomization.get("patches", []) if "path" in patch]
        for generator in kustomization.get("configMapGenerator", []):
            names += [*generator.get("envs", []), *generator.get("files", [])]
        used |= {(directory / name).resolve() for name in names}
    there = {p for p in BASE.parent.rglob("*/*") if p.is_file() and p.name != "kustomization.yaml"}
    assert {p.relative_to(BASE.parent) for p in there - used} == set()


@pytest.mark.parametrize(
    ("rule", "broken"), [(r, b) for r, _, b in BREAKS], ids=[f"{r.__name__}-{n}" for r, n, _ in BREAKS]
)
def test_a_broken_copy_is_refused(rule: Rule, broken: Break) -> None:
    manifests = copy.deepcopy(FILES)
    broken(manifests)
    assert rule(manifests)


def test_every_rule_has_a_copy_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BREAKS} == {*RULES, *KAFKA_RULES}


KINDS = sorted({m["kind"] for m in [*FILES, *read_tree(OVERLAYS / "kind")]})
_TYPES: dict[str, Break] = {
    "ConfigMap": lambda m: m.update(data="text"),
    "CronJob": lambda m: m["spec"].pop("schedule"),
    "Deployment": lambda m: m["spec"].update(replicas="two"),
    "Job": lambda m: m["spec"]["template"]["spec"].pop("containers"),
    "Kafka": lambda m: m["spec"]["kafka"].update(listeners="tls"),
    "KafkaNodePool": lambda m: m["spec"].update(roles=["zookeeper"]),
    "KafkaTopic": lambda m: m["spec"].update(partitions=0),
    "KafkaUser": lambda m: m["spec"]["authorization"]["acls"][0].update(operations=["Peek"]),
    "Namespace": lambda m: m["metadata"].update(labels=["restricted"]),
    "NetworkPolicy": lambda m: m["spec"].update(policyTypes="Ingress"),
    "PersistentVolumeClaim": lambda m: m["spec"].update(accessModes="ReadWriteMany"),
    "PodDisruptionBudget": lambda m: m["spec"].update(selector="all"),
    "ScaledObject": lambda m: m["spec"].pop("triggers"),
    "Service": lambda m: m["spec"]["ports"][0].update(port="eighty"),
    "ServiceAccount": lambda m: m.update(automountServiceAccountToken="no"),
    "ServiceMonitor": lambda m: m["spec"].update(endpoints=[]),
    "StatefulSet": lambda m: m["spec"].pop("selector"),
    "TriggerAuthentication": lambda m: m["spec"]["secretTargetRef"][0].pop("name"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["a misspelt field", "a wrong type"])
def test_a_broken_manifest_of_each_kind_is_invalid(kind: str, how: str) -> None:
    manifest = copy.deepcopy(named([*FILES, *read_tree(OVERLAYS / "kind")], kind)[0])
    if how == "a wrong type":
        _TYPES[kind](manifest)
    else:
        manifest.get("spec", manifest)["comand"] = "x"
    assert invalid(manifest)
