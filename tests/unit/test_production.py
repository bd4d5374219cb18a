"""Production mode refuses what would lose or expose evidence, and says the way out."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from pipeline.media.objects import Objects
from pipeline.settings import PREFIX, SettingsInvalid, load_settings
from schemas.types import StageName
from workers import start as starting
from workers.settings import Settings

BUCKET, KEYS = "s3://evidence/fleet", "s3://evidence-keys"


@pytest.fixture(autouse=True)
def production(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MEDIASIEVE_PRODUCTION", "true")


@pytest.fixture
def master(tmp_path: Path) -> Path:
    path = tmp_path / "master"
    path.write_bytes(base64.b64encode(bytes(32)))
    return path


def configure(monkeypatch: pytest.MonkeyPatch, master: Path, store: str = BUCKET, keys: str = KEYS) -> None:
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", store)
    monkeypatch.setenv("MEDIASIEVE_STORE__KEYS__URL", keys)
    monkeypatch.setenv("MEDIASIEVE_STORE__KEYS__MASTER_KEYS", f'{{"2026": "{master}"}}')
    monkeypatch.setenv("MEDIASIEVE_STORE__KEYS__CURRENT", "2026")


def faults() -> list[str]:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(Settings)
    return str(caught.value).splitlines()


def test_a_bucket_with_keys_elsewhere_is_taken(monkeypatch: pytest.MonkeyPatch, master: Path) -> None:
    configure(monkeypatch, master)
    settings = load_settings(Settings)
    assert settings.production
    assert settings.store.keys is not None
    assert settings.store.keys.master_keys == {"2026": master}


def test_without_keys_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", BUCKET)
    (fault,) = faults()
    assert fault.startswith("MEDIASIEVE_STORE__KEYS (in the file: store.keys): evidence must be encrypted")
    assert "openssl rand -base64 32" in fault
    assert "unset MEDIASIEVE_PRODUCTION" in fault


def test_memory_and_no_keys_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", "memory://")
    url, keys = faults()
    assert url.startswith("MEDIASIEVE_STORE__URL (in the file: store.url): memory:// ends with its process")
    assert keys.startswith("MEDIASIEVE_STORE__KEYS ")


@pytest.mark.parametrize(
    ("store", "keys", "why"),
    [
        (BUCKET, "memory://", "ends with its process"),
        (BUCKET, "s3://evidence/other/prefix", "a bucket or directory of its own"),
        ("file:///var/lib/mediasieve", "file:///var/lib/mediasieve/", "a bucket or directory of its own"),
    ],
)
def test_keys_must_outlive_the_process_and_lie_elsewhere(
    store: str, keys: str, why: str, monkeypatch: pytest.MonkeyPatch, master: Path
) -> None:
    configure(monkeypatch, master, store, keys)
    (fault,) = faults()
    assert fault.startswith("MEDIASIEVE_STORE__KEYS__URL (in the file: store.keys.url): ")
    assert why in fault


def test_outside_of_production_all_of_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_PRODUCTION", "false")
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", "memory://")
    assert load_settings(Settings).store.keys is None


def test_a_worker_does_not_start_on_a_store_without_object_lock(
    monkeypatch: pytest.MonkeyPatch, master: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(monkeypatch, master, (tmp_path / "store").as_uri(), (tmp_path / "keys").as_uri())
    assert starting.start(StageName.SPECTRAL) == 2
    assert "has no Object Lock" in capsys.readouterr().err


@pytest.mark.parametrize("stage", StageName)
def test_a_worker_does_not_start_with_a_bad_master_key(
    stage: StageName, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDIASIEVE_PRODUCTION", "false")
    configure(monkeypatch, tmp_path / "absent", (tmp_path / "store").as_uri(), (tmp_path / "keys").as_uri())
    assert starting.start(stage) == 2
    assert "store.keys.master_keys.2026" in capsys.readouterr().err
    assert list(Objects((tmp_path / "keys").as_uri()).list("")) == []
