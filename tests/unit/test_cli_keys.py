"""`mediasieve keys rewrap`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.media.content_store import open_store
from pipeline.media.store_settings import KeySettings, StoreSettings
from pipeline.settings import PREFIX, SettingsInvalid
from workers.cli.main import app

DATA = b"original bytes"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreSettings:
    for name in [n for n in os.environ if n.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    masters = {}
    for number, name in enumerate(("old", "new")):
        masters[name] = tmp_path / name
        masters[name].write_bytes(base64.b64encode(bytes([number]) * 32))
    keys = KeySettings(url=(tmp_path / "keys").as_uri(), master_keys=masters, current="old")
    return StoreSettings(url=(tmp_path / "store").as_uri(), keys=keys)


def configure(monkeypatch: pytest.MonkeyPatch, store: StoreSettings, current: str) -> None:
    assert store.keys is not None
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", store.url)
    keys = store.keys.model_copy(update={"current": current})
    monkeypatch.setenv("MEDIASIEVE_STORE__KEYS", keys.model_dump_json())


def test_after_it_the_old_master_key_can_go(settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    for tenant in ("acme", "rival"):
        open_store(settings).put(tenant, SHA256, DATA)
    configure(monkeypatch, settings, "new")
    one = CliRunner().invoke(app, ["keys", "rewrap", "--tenant", "acme", "--json"], catch_exceptions=False)
    assert json.loads(one.stdout) == {"changed": 1, "current": 0, "destroyed": 0, "master": "new"}
    rest = CliRunner().invoke(app, ["keys", "rewrap"], catch_exceptions=False)
    assert rest.stdout == "1 keys are now under master key 'new', 1 were already, 0 are destroyed\n"
    assert settings.keys is not None
    settings.keys.master_keys["old"].unlink()
    masters = {"new": settings.keys.master_keys["new"]}
    only = settings.keys.model_copy(update={"master_keys": masters, "current": "new"})
    assert open_store(settings.model_copy(update={"keys": only})).get("rival", SHA256) == DATA


def test_without_a_key_store_it_names_the_setting(settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", settings.url)
    with pytest.raises(SettingsInvalid, match="MEDIASIEVE_STORE__KEYS"):
        CliRunner().invoke(app, ["keys", "rewrap"], catch_exceptions=False)
