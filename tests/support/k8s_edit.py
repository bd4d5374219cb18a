"""Places in a tree of manifests, for tests that break one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.k8s import Manifest, named, template_of

Rule = Callable[[list[Manifest]], list[str]]
Break = Callable[[list[Manifest]], Any]


def only(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = named(manifests, kind, name)
    return found


def pod(manifests: list[Manifest], name: str, kind: str = "Deployment") -> Any:
    return template_of(only(manifests, kind, f"mediasieve-{name}"))["spec"]


def container(manifests: list[Manifest], name: str, kind: str = "Deployment") -> Any:
    return pod(manifests, name, kind)["containers"][0]


def topic(manifests: list[Manifest], name: str = "media.ingest") -> Any:
    return only(manifests, "KafkaTopic", name)["spec"]


def scaled(manifests: list[Manifest]) -> Any:
    return only(manifests, "ScaledObject", "mediasieve-spectral")["spec"]


def acls(manifests: list[Manifest], user: str) -> Any:
    return only(manifests, "KafkaUser", f"mediasieve-{user}")["spec"]["authorization"]["acls"]


def policy(manifests: list[Manifest], name: str) -> Any:
    return only(manifests, "NetworkPolicy", name)["spec"]


def config(manifests: list[Manifest], name: str) -> Any:
    return only(manifests, "ConfigMap", f"mediasieve-{name}")["data"]


def kafka(manifests: list[Manifest]) -> Any:
    return only(manifests, "Kafka", "mediasieve")["spec"]["kafka"]


def env(manifests: list[Manifest], name: str, variable: str) -> Any:
    (found,) = [v for v in container(manifests, name)["env"] if v["name"] == variable]
    return found


def drop(manifests: list[Manifest], kind: str, name: str) -> None:
    manifests.remove(only(manifests, kind, name))
