"""Copies that break the rules of `k8s_fleet` and `k8s_network`: the rule, what is wrong, and how."""

from __future__ import annotations

from tests.support import k8s_fleet, k8s_network
from tests.support.k8s import template_of
from tests.support.k8s_edit import Break, Rule, acls, config, container, drop, env, kafka, only, policy, scaled, topic

BREAKS: list[tuple[Rule, str, Break]] = [
    (k8s_fleet.credentials, "a secret", lambda m: m.append({"kind": "Secret", "metadata": {"name": "s"}})),
    (
        k8s_fleet.credentials,
        "another's password",
        lambda m: env(m, "mllm", "MEDIASIEVE_KAFKA__SASL_USERNAME").update(value="mediasieve-audit"),
    ),
    (
        k8s_fleet.credentials,
        "a seed in plain",
        lambda m: container(m, "classifier")["env"].append(
            {"name": "MEDIASIEVE_CLASSIFIER__AUDIT_SAMPLE__SEED", "value": "x"}
        ),
    ),
    (k8s_fleet.brokers, "KAFKA-20734", lambda m: kafka(m).update(version="4.3.0")),
    (
        k8s_fleet.brokers,
        "unclean elections",
        lambda m: kafka(m)["config"].update({"unclean.leader.election.enable": True}),
    ),
    (
        k8s_fleet.brokers,
        "slow to notice the dead",
        lambda m: kafka(m)["config"].update({"group.consumer.session.timeout.ms": 45000}),
    ),
    (k8s_fleet.brokers, "plain text", lambda m: kafka(m)["listeners"][0].update(tls=False)),
    (k8s_fleet.brokers, "one broker", lambda m: only(m, "KafkaNodePool", "mediasieve")["spec"].update(replicas=1)),
    (k8s_fleet.scaling, "more pods than partitions", lambda m: topic(m, "media.suspect").update(partitions=6)),
    (
        k8s_fleet.scaling,
        "more replicas than partitions",
        lambda m: only(m, "Deployment", "mediasieve-mllm")["spec"].update(replicas=25),
    ),
    (k8s_fleet.scaling, "to zero", lambda m: scaled(m).update(minReplicaCount=0)),
    (k8s_fleet.scaling, "another threshold", lambda m: scaled(m)["triggers"][0]["metadata"].update(lagThreshold="100")),
    (
        k8s_fleet.scaling,
        "a rate of other pods",
        lambda m: container(m, "spectral")["env"].append({"name": "MEDIASIEVE_SPECTRAL__PROCESSES", "value": "7"}),
    ),
    (
        k8s_fleet.scaling,
        "another HPA than simulated",
        lambda m: scaled(m)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleUp"].update(
            stabilizationWindowSeconds=0
        ),
    ),
    (
        k8s_fleet.scaling,
        "a topic left out",
        lambda m: scaled(m)["triggers"][0]["metadata"].update(topic="media.suspect"),
    ),
    (
        k8s_fleet.scaling,
        "a plunge",
        lambda m: scaled(m)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"].update(
            stabilizationWindowSeconds=0
        ),
    ),
    (
        k8s_fleet.scaling,
        "many at once",
        lambda m: scaled(m)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"][0].update(
            value=5
        ),
    ),
    (
        k8s_fleet.time_to_live,
        "an early sweep",
        lambda m: container(m, "retention-sweep", "CronJob").update(args=["retention", "sweep", "--older-than=45d"]),
    ),
    (
        k8s_fleet.time_to_live,
        "slow people",
        lambda m: only(m, "CronJob", "mediasieve-retention-sweep")["metadata"]["annotations"].update(
            {"mediasieve.io/review-sla": "31d"}
        ),
    ),
    (
        k8s_fleet.time_to_live,
        "a short period",
        lambda m: config(m, "retention").update(
            {"retention.toml": config(m, "retention")["retention.toml"].replace('escalate = "1y"', 'escalate = "30d"')}
        ),
    ),
    (k8s_fleet.topics_agree, "a missing topic", lambda m: drop(m, "KafkaTopic", "references")),
    (k8s_fleet.topics_agree, "a topic of nobody's", lambda m: topic(m).update(x=1)),
    (k8s_fleet.topics_agree, "another retention", lambda m: topic(m)["config"].update({"retention.ms": 1})),
    (k8s_fleet.topics_agree, "uneven partitions", lambda m: topic(m, "media.suspect").update(partitions=12)),
    (k8s_fleet.topics_agree, "one copy", lambda m: topic(m).update(replicas=1)),
    (k8s_fleet.least_rights, "a right too many", lambda m: acls(m, "spectral")[0]["operations"].append("Write")),
    (k8s_fleet.least_rights, "a right too few", lambda m: acls(m, "classifier").pop(0)),
    (
        k8s_fleet.least_rights,
        "no coordinator",
        lambda m: acls(m, "console").remove(
            {"resource": {"type": "group", "name": "reader"}, "operations": ["Describe"]}
        ),
    ),
    (
        k8s_fleet.least_rights,
        "everything",
        lambda m: acls(m, "siem").append({"resource": {"type": "cluster"}, "operations": ["All"]}),
    ),
    (
        k8s_fleet.least_rights,
        "another's group",
        lambda m: acls(m, "mllm").append({"resource": {"type": "group", "name": "audit"}, "operations": ["Read"]}),
    ),
    (k8s_network.closed, "no default", lambda m: drop(m, "NetworkPolicy", "default-deny")),
    (k8s_network.closed, "every port", lambda m: policy(m, "allow-store")["egress"][0].pop("ports")),
    (k8s_network.closed, "everybody", lambda m: policy(m, "allow-metrics")["ingress"][0].pop("from")),
    (
        k8s_network.one_way_out,
        "a second way out",
        lambda m: policy(m, "allow-store")["egress"][0].update(to=[{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
    ),
    (
        k8s_network.one_way_out,
        "metadata",
        lambda m: policy(m, "allow-fetch")["egress"][0]["to"][0]["ipBlock"]["except"].remove("169.254.0.0/16"),
    ),
    (
        k8s_network.served,
        "cut off",
        lambda m: template_of(only(m, "Deployment", "mediasieve-audit"))["metadata"]["labels"].pop(
            "mediasieve.io/store"
        ),
    ),
    (
        k8s_network.served,
        "let out",
        lambda m: template_of(only(m, "CronJob", "mediasieve-drift"))["metadata"]["labels"].update(
            {"mediasieve.io/fetch": "true"}
        ),
    ),
    (
        k8s_network.traced,
        "spans into a wall",
        lambda m: config(m, "settings").update(MEDIASIEVE_TRACE__EXPORTER="otlp"),
    ),
    (k8s_network.watched, "unseen", lambda m: only(m, "Service", "mediasieve-audit")["metadata"]["labels"].clear()),
    (
        k8s_network.watched,
        "another path",
        lambda m: only(m, "ServiceMonitor", "mediasieve")["spec"]["endpoints"][0].update(path="/"),
    ),
]
