"""The environment that a container of a manifest gets, and the settings which that makes."""

from __future__ import annotations

import os
from unittest import mock

from pipeline.settings import PREFIX, SettingsInvalid, load_settings
from tests.support.k8s import Manifest, named
from workers.settings import Settings

_SECRETS = {"MEDIASIEVE_DATABASE__URL": "postgresql+psycopg://user:word@host/name"}


def environment(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """From ConfigMaps and `env`; what a Secret would say is made up."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        reference = source.get("configMapRef")
        if reference is not None:
            (config,) = named(manifests, "ConfigMap", reference["name"])
            found |= config["data"]
    for variable in container.get("env", []):
        found[variable["name"]] = variable.get("value", _SECRETS.get(variable["name"], "secret"))
    return found


def settings_of(manifests: list[Manifest], container: Manifest) -> Settings:
    """As the process would load them. Raises SettingsInvalid with every fault."""
    given = {k: v for k, v in environment(manifests, container).items() if k.startswith(PREFIX)}
    with mock.patch.dict(os.environ, given, clear=True):
        return load_settings(Settings)


def settings_fault(manifests: list[Manifest], container: Manifest) -> str | None:
    """Why the process would end with exit code 2; None when it would not."""
    try:
        settings_of(manifests, container)
    except SettingsInvalid as error:
        return str(error)
    return None
