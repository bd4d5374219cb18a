"""Rules between manifests and code: topics, users, scaling, networks, time to live. As those of `k8s_pods`."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from datetime import timedelta
from functools import cache
from typing import Any

import yaml
from typer.testing import CliRunner

from pipeline.capacity.simulation.scenario import Membership, ScalerSettings
from pipeline.evidence.in_flight import longest_flight
from pipeline.evidence.retention import Period, RetentionPolicy
from pipeline.streaming.kafka.admin import topic_settings
from schemas.topics import AUDITED_TOPICS, DECISION_TOPICS, RETRY_DELAYS_S, TOPICS, Topic
from tests.support.k8s import ROOT, Manifest, name_of, named, ours, stages, template_of
from tests.support.k8s_settings import settings_of
from workers.classifier.worker import TOPICS as CLASSIFIER_TOPICS
from workers.cli.main import app
from workers.gateway.backpressure import STAGE_TOPICS
from workers.gateway.events import PROJECTED_TOPICS

REPLICAS = 3
_DECISIONS = frozenset(DECISION_TOPICS.values())
_MISSES = frozenset({Topic.AUDIT_SAMPLES, Topic.REVIEWS, Topic.REFERENCE_UPDATES})
"""With the decisions, what `mediasieve audit-sample report` reads; the console runs it (workers.console.web.misses)."""

READS: dict[str, frozenset[str]] = {
    "classifier": frozenset(CLASSIFIER_TOPICS),
    "spectral": frozenset({Topic.SUSPECT, Topic.SUSPECT_PRIORITY, Topic.REFERENCES}),
    "mllm": frozenset({Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY}),
    "audit": frozenset(AUDITED_TOPICS),
    "gateway": frozenset(PROJECTED_TOPICS),
    "console": _DECISIONS | _MISSES,
    "adaptation": frozenset({Topic.REVIEWS, Topic.REFERENCES}),
    "monitoring": _DECISIONS | _MISSES,
    "retention": frozenset(),
    "keda": frozenset(),
    "producer": frozenset(),
    "siem": _DECISIONS | {Topic.QUALITY},
}
_FATES = frozenset({Topic.PASS, Topic.ESCALATE, Topic.DEAD_LETTER, Topic.SHADOW_RESULTS})
WRITES: dict[str, frozenset[str]] = {
    "classifier": _FATES | {Topic.SUSPECT, Topic.SUSPECT_PRIORITY, *RETRY_DELAYS_S},
    "spectral": _FATES | {Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY, Topic.AUDIT_SAMPLES},
    "mllm": _FATES | {Topic.BLOCK, Topic.AUDIT_SAMPLES},
    "audit": frozenset(),
    "gateway": frozenset({Topic.INGEST}),
    "console": _DECISIONS | {Topic.REVIEWS, Topic.REVIEW_ACTIONS},
    "adaptation": frozenset({Topic.REFERENCES, Topic.REFERENCE_UPDATES}),
    "monitoring": frozenset({Topic.QUALITY}),
    "retention": frozenset({Topic.ERASURES}),
    "keda": frozenset(),
    "producer": frozenset({Topic.INGEST}),
    "siem": frozenset(),
}
_READERS = frozenset({"spectral", "adaptation", "console", "monitoring"})
_GROUPLESS = frozenset({"adaptation", "monitoring", "retention", "keda", "producer"})


def topics_agree(manifests: list[Manifest]) -> list[str]:
    """The KafkaTopics are those of the code, setting by setting; AsyncAPI and code know the same."""
    found = {m["metadata"]["name"]: m["spec"] for m in named(manifests, "KafkaTopic")}
    many = max((spec["partitions"] for spec in found.values()), default=0)
    wanted = {
        spec.topic.value: {
            "partitions": spec.partitions or many,
            "replicas": REPLICAS,
            "config": topic_settings(spec, REPLICAS),
        }
        for spec in TOPICS
    }
    told = {name: spec | {"config": {k: _text(v) for k, v in spec["config"].items()}} for name, spec in found.items()}
    faults = [f"KafkaTopic/{n}: {told.get(n)}, the code says {wanted.get(n)}" for n in _differing(told, wanted)]
    document = yaml.safe_load((ROOT / "schemas" / "asyncapi.yaml").read_text(encoding="utf-8"))
    described = {channel["address"] for channel in document["channels"].values()}
    return faults + [f"asyncapi.yaml and code differ about {name}" for name in described ^ wanted.keys()]


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def least_rights(manifests: list[Manifest]) -> list[str]:
    """Each user may do what its process does in the code, and nothing else."""
    faults = []
    users = {m["metadata"]["name"].removeprefix("mediasieve-"): m for m in named(manifests, "KafkaUser")}
    faults += [f"KafkaUser/mediasieve-{name}: is there, or should be" for name in users.keys() ^ READS.keys()]
    for name in sorted(users.keys() & READS.keys()):
        acls = users[name]["spec"]["authorization"]["acls"]
        stage = name in ("classifier", "spectral", "mllm")
        group = "siem-" if name == "siem" else name
        wanted = {
            "reads": (_allowed(acls, "topic", "Read"), set(READS[name])),
            "groupless readers": (  # the client asks for the coordinator of `reader` all the same
                "reader" in _allowed(acls, "group", "Describe"),
                name in _READERS,
            ),
            "writes": (_allowed(acls, "topic", "Write"), set(WRITES[name])),
            "groups": (_allowed(acls, "group", "Read"), set() if name in _GROUPLESS else {group}),
            "transactions": (_allowed(acls, "transactionalId", "Write"), {f"{name}-"} if stage else set()),
            "operations": ({op for acl in acls for op in acl["operations"]} - {"Read", "Write", "Describe"}, set()),
            "resources": ({acl["resource"]["type"] for acl in acls} - {"topic", "group", "transactionalId"}, set()),
            "prefixes": (
                {a["resource"]["name"] for a in acls if a["resource"].get("patternType", "literal") != "literal"},
                {f"{name}-"} if stage or name == "siem" else set(),
            ),
        }
        faults += [f"KafkaUser/mediasieve-{name}: {w}: {f} != {c}" for w, (f, c) in wanted.items() if f != c]
    return faults


def _allowed(acls: list[Manifest], kind: str, operation: str) -> set[str]:
    return {a["resource"]["name"] for a in acls if a["resource"]["type"] == kind and operation in a["operations"]}


def credentials(manifests: list[Manifest]) -> list[str]:
    """No manifest holds a secret, and whoever speaks SASL uses the password of the user that it names."""
    faults = [f"{name_of(m)}: a secret in the tree" for m in named(manifests, "Secret")]
    users = {m["metadata"]["name"] for m in named(manifests, "KafkaUser")}
    for manifest, _, container in ours(manifests):
        env = {variable["name"]: variable for variable in container.get("env", [])}
        user = env.get("MEDIASIEVE_KAFKA__SASL_USERNAME", {}).get("value")
        source = env.get("MEDIASIEVE_KAFKA__SASL_PASSWORD", {}).get("valueFrom", {}).get("secretKeyRef", {})
        if user is not None and source != {"name": user, "key": "password"}:
            faults.append(f"{name_of(manifest)}: password of {source.get('name')} for {user}")
        if users and user not in users:
            faults.append(f"{name_of(manifest)}: no KafkaUser {user}")
        faults += [
            f"{name_of(manifest)}: {name} is written out"
            for name, variable in env.items()
            if re.search("PASSWORD|API_KEY$|SEED|DATABASE__URL", name) and "value" in variable
        ]
    return faults


def scaling(manifests: list[Manifest]) -> list[str]:
    """By lag of the stage's own topics, as the stated command says; never 0 nor beyond the partitions, gently down."""
    partitions = {m["metadata"]["name"]: m["spec"]["partitions"] for m in named(manifests, "KafkaTopic")}
    faults = []
    for name, manifest, _, _ in stages(manifests):
        topics = [topic for stage, its in STAGE_TOPICS.items() if stage == name for topic in its]
        own = [partitions[topic] for topic in topics if partitions]
        replicas = manifest["spec"].get("replicas", 1)
        if replicas > min(own, default=replicas):
            faults.append(f"{name_of(manifest)}: {replicas} replicas for {min(own)} partitions")
    for scaled in named(manifests, "ScaledObject"):
        faults += [
            f"{name_of(scaled)}: {rule}" for rule, kept in _scaled(scaled, manifests, partitions).items() if not kept
        ]
    return faults


def _scaled(scaled: Manifest, manifests: list[Manifest], partitions: dict[str, int]) -> dict[str, bool]:
    spec, stated = scaled["spec"], scaled["metadata"]["annotations"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (trigger,) = spec["triggers"]
    told = trigger["metadata"]
    topics = told["topic"].split(",")
    words = shlex.split(stated["mediasieve.io/lag-threshold-by"])
    targets = named(manifests, "Deployment", spec["scaleTargetRef"]["name"])
    least, most = spec["minReplicaCount"], spec["maxReplicaCount"]
    down = behavior["scaleDown"]
    return {
        "lagThreshold": told["lagThreshold"] == _threshold(*words[1:]),
        "lag-threshold-by": _is_of_the_pod(words, told["consumerGroup"], targets, manifests),
        "behavior": behavior == _simulated_behavior() and "useCachedMetrics" not in trigger,
        "metricType": trigger.get("metricType", "AverageValue") == "AverageValue",
        "topics": topics
        == [t.value for s, own in STAGE_TOPICS.items() if s.value == told["consumerGroup"] for t in own],
        "minReplicaCount": least >= 1 and "idleReplicaCount" not in spec,
        "maxReplicaCount": least <= most and all(most <= partitions.get(topic, 0) for topic in topics),
        "stabilizationWindowSeconds": down["stabilizationWindowSeconds"] >= 300,
        "scaleDown": [(p["type"], p["value"]) for p in down["policies"]] == [("Pods", 1)],
        "allowIdleConsumers": told.get("allowIdleConsumers") == str(ScalerSettings(1).idle_consumers).lower(),
        "offsetResetPolicy": told.get("offsetResetPolicy") == "earliest",
        "excludePersistentLag": "excludePersistentLag" not in told,
        "fallback": spec["fallback"]["replicas"] >= least,
        "scaleTargetRef": len(targets) == 1,
        "authenticationRef": len(named(manifests, "TriggerAuthentication", trigger["authenticationRef"]["name"])) == 1,
    }


@cache
def _threshold(*words: str) -> str:
    """What `mediasieve capacity replica ...` answers, from the packaged profile."""
    done = CliRunner().invoke(app, [*words, "--json"])
    return str(json.loads(done.output)["lag_threshold"]) if done.exit_code == 0 else done.output


def _is_of_the_pod(words: list[str], stage: str, targets: list[Manifest], manifests: list[Manifest]) -> bool:
    """The command describes the pods that are scaled: their cores, slots and places at the model server."""
    options = dict(zip(words[4::2], words[5::2], strict=True))
    told = {name: float(options[f"--{name}"]) for name in ("cores", "slots", "mllm-places") if f"--{name}" in options}
    wanted: dict[str, float] = {}
    for target in targets:
        (container,) = template_of(target)["spec"]["containers"]
        if container.get("command") != ["mediasieve"]:
            (places,) = [a.partition("=")[2] for a in container["args"] if a.startswith("--max-num-seqs=")]
            wanted = {"mllm-places": float(places)}
            continue
        settings = settings_of(manifests, container)
        slots = {"classifier": settings.classifier.slots, "spectral": settings.spectral.processes}
        if stage in slots:
            wanted = {"cores": float(container["resources"]["requests"]["cpu"]), "slots": float(slots[stage])}
        elif settings.mllm.openai is not None:  # otherwise the component gpu is yet to say how many
            wanted = {"mllm-places": float(settings.mllm.concurrency)}
    return words[:4] == ["mediasieve", "capacity", "replica", stage] and wanted.items() <= told.items()


def _simulated_behavior() -> Manifest:
    """What `mediasieve capacity simulate` takes for granted."""
    scaler = ScalerSettings(1)
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": scaler.up_window_s,
            "policies": [{"type": "Pods", "value": scaler.up_pods, "periodSeconds": scaler.up_period_s}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": scaler.down_window_s,
            "policies": [{"type": "Pods", "value": scaler.down_pods, "periodSeconds": scaler.down_period_s}],
        },
    }


def brokers(manifests: list[Manifest]) -> list[str]:
    """Three brokers without KAFKA-20734, encrypted and authenticated, that lose nothing with one of them."""
    faults = []
    for kafka in named(manifests, "Kafka"):
        spec, config = kafka["spec"]["kafka"], kafka["spec"]["kafka"]["config"]
        found = {
            "version": re.fullmatch(r"4\.[12]\.\d+", spec["version"]) is not None,
            "listeners": all(item["tls"] and item["authentication"]["type"] != "" for item in spec["listeners"]),
            "authorization": spec.get("authorization", {}).get("type") == "simple",
            "replication": {config[f"{n}.replication.factor"] for n in ("default", "offsets.topic", _STATE_LOG)} == {3},
            "min.isr": {config["min.insync.replicas"], config[f"{_STATE_LOG}.min.isr"]} == {2},
            "unclean.leader.election.enable": config["unclean.leader.election.enable"] is False,
            "session timeout": int(config["group.consumer.session.timeout.ms"])
            == 1000 * Membership().session_timeout_s,  # as it is simulated
            "auto.create.topics.enable": config["auto.create.topics.enable"] is False,
            "nodes": sum(p["spec"]["replicas"] for p in named(manifests, "KafkaNodePool")) >= REPLICAS,
            "deleteClaim": all(
                volume["deleteClaim"] is False
                for pool in named(manifests, "KafkaNodePool")
                for volume in pool["spec"]["storage"]["volumes"]
            ),
        }
        faults += [f"{name_of(kafka)}: {rule}" for rule, kept in found.items() if not kept]
    return faults


_STATE_LOG = "transaction.state.log"


def time_to_live(manifests: list[Manifest]) -> list[str]:
    """Content outlasts every record that may name it, its retries and the people's answer; periods do too."""
    (sweep,) = named(manifests, "CronJob", "mediasieve-retention-sweep")
    (container,) = template_of(sweep)["spec"]["containers"]
    (age,) = [_days(a.partition("=")[2]) for a in container["args"] if a.startswith("--older-than=")]
    review = _days(sweep["metadata"]["annotations"]["mediasieve.io/review-sla"])
    kept = {spec.topic: timedelta(milliseconds=spec.retention_ms) for spec in TOPICS}
    retries = kept[Topic.RETRY_10M]  # a record may wait there as long as the topic keeps it
    faults = []
    if age <= longest_flight() + review:
        faults.append(f"{name_of(sweep)}: {age} is not longer than {longest_flight()} of topics and {review} of review")
    if longest_flight() <= kept[Topic.SUSPECT] + retries:
        faults.append("the flight is shorter than a topic's retention and the retries")
    if kept[Topic.ESCALATE] <= review:
        faults.append("decisions.escalate forgets before people have answered")
    for config in named(manifests, "ConfigMap"):
        if "retention.toml" in config["data"]:
            policy = RetentionPolicy.model_validate(tomllib.loads(config["data"]["retention.toml"]))
            for kind in ("escalate", "block"):
                period = policy.period("any", kind)
                if period.years == 0 and timedelta(days=period.days) <= kept[Topic.ESCALATE] + review:
                    faults.append(f"retention.toml: {kind} = {period}")
    return faults


def _days(text: str) -> timedelta:
    return timedelta(days=Period.parse(text).days)
