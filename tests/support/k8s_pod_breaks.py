"""Copies that break the rules of `k8s_pods`: the rule, what is wrong, and how."""

from __future__ import annotations

from tests.support import k8s_pods
from tests.support.k8s_edit import Break, Rule, config, container, drop, env, only, pod

BREAKS: list[tuple[Rule, str, Break]] = [
    (k8s_pods.hardened, "a root user", lambda m: pod(m, "audit")["securityContext"].update(runAsUser=0)),
    (
        k8s_pods.hardened,
        "a writable root",
        lambda m: container(m, "mllm")["securityContext"].pop("readOnlyRootFilesystem"),
    ),
    (k8s_pods.hardened, "a capability", lambda m: container(m, "vllm")["securityContext"].update(capabilities={})),
    (k8s_pods.hardened, "a job's token", lambda m: pod(m, "drift", "CronJob").pop("automountServiceAccountToken")),
    (k8s_pods.hardened, "boundless scratch", lambda m: pod(m, "gateway")["volumes"][0].update(emptyDir={})),
    (k8s_pods.hardened, "service links", lambda m: pod(m, "console").pop("enableServiceLinks")),
    (k8s_pods.hardened, "boundless memory", lambda m: container(m, "weekly", "CronJob")["resources"].pop("limits")),
    (k8s_pods.pinned, "latest", lambda m: container(m, "audit").update(image="mediasieve:latest")),
    (k8s_pods.pinned, "no tag", lambda m: container(m, "vllm").update(image="vllm/vllm-openai")),
    (k8s_pods.configured, "no such setting", lambda m: config(m, "settings").update(MEDIASIEVE_KAFKA__BOOTSTARP="x:1")),
    (
        k8s_pods.configured,
        "a value out of bounds",
        lambda m: env(m, "spectral", "MEDIASIEVE_SPECTRAL__PROCESSES").update(value="0"),
    ),
    (
        k8s_pods.configured,
        "production without keys",
        lambda m: [config(m, "settings").pop(k) for k in [*config(m, "settings")] if "STORE__KEYS" in k],
    ),
    (k8s_pods.mounted, "keys that are not mounted", lambda m: container(m, "audit")["volumeMounts"].pop()),
    (
        k8s_pods.mounted,
        "a policy elsewhere",
        lambda m: env(m, "audit", "MEDIASIEVE_RETENTION_POLICY").update(value="/etc/mediasieve/policy.toml"),
    ),
    (k8s_pods.commands_exist, "no such worker", lambda m: container(m, "audit").update(args=["worker", "auditor"])),
    (k8s_pods.commands_exist, "no such option", lambda m: container(m, "drift", "CronJob")["args"].append("--loud")),
    (k8s_pods.commands_exist, "no such command", lambda m: container(m, "drift", "CronJob").update(args=["drifting"])),
    (k8s_pods.probed, "another port", lambda m: container(m, "classifier")["ports"][0].update(containerPort=9090)),
    (
        k8s_pods.probed,
        "liveness by brokers",
        lambda m: container(m, "mllm")["livenessProbe"]["httpGet"].update(path="/ready"),
    ),
    (k8s_pods.probed, "no time to load", lambda m: container(m, "mllm").pop("startupProbe")),
    (k8s_pods.drains, "a hasty end", lambda m: pod(m, "mllm").update(terminationGracePeriodSeconds=60)),
    (
        k8s_pods.drains,
        "a longer drain",
        lambda m: config(m, "settings").update(MEDIASIEVE_RUNNER__DRAIN_TIMEOUT_S="300"),
    ),
    (
        k8s_pods.roomy,
        "uploads that do not fit",
        lambda m: pod(m, "gateway")["volumes"][0].update(emptyDir={"sizeLimit": "512Mi"}),
    ),
    (k8s_pods.spread, "all on one node", lambda m: pod(m, "audit").pop("topologySpreadConstraints")),
    (k8s_pods.spread, "no budget", lambda m: drop(m, "PodDisruptionBudget", "mediasieve-console")),
    (
        k8s_pods.spread,
        "a service of nothing",
        lambda m: only(m, "Service", "mediasieve-mllm")["spec"].update(selector={"a": "b"}),
    ),
    (k8s_pods.spread, "no account", lambda m: drop(m, "ServiceAccount", "mediasieve-audit")),
    (
        k8s_pods.whole_cores,
        "half a core",
        lambda m: [container(m, "spectral")["resources"][k].update(cpu="13500m") for k in ("limits", "requests")],
    ),
    (k8s_pods.whole_cores, "a burst", lambda m: container(m, "spectral")["resources"]["requests"].update(cpu="4")),
]
