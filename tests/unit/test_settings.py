"""Settings: environment over file over defaults, all faults at once, secrets never shown."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.settings import CONFIG_VARIABLE, PREFIX, SettingsInvalid, load_settings
from workers.settings import Settings

SECRET = "hunter2-do-not-print"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "fleet.toml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


def faults() -> str:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(Settings)
    return str(caught.value)


def test_the_defaults_work() -> None:
    settings = load_settings(Settings)
    assert settings.kafka.bootstrap == "127.0.0.1:9092"
    assert settings.store.url.startswith("file:///")
    assert settings.mllm.backend == "unconfigured"


def test_a_nested_variable_changes_its_field_and_leaves_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_RUNNER__BATCH__MAX_ITEMS", "7")
    settings = load_settings(Settings)
    assert settings.runner.batch.max_items == 7
    assert settings.runner.batch.max_wait_s == 0.02
    assert settings.runner.commit_max_items == 256


def scalars(model: BaseModel, prefix: str = PREFIX) -> Iterator[tuple[str, str]]:
    """Every number, flag and name among the settings: its variable, and its value as text."""
    for name, value in model:
        variable = f"{prefix}{name.upper()}"
        if isinstance(value, BaseModel):
            yield from scalars(value, f"{variable}__")
        elif isinstance(value, (bool, int, float, str)):
            yield variable, str(value)


def test_every_default_can_be_given_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict(scalars(Settings()))
    assert len(given) > 100
    for variable, text in given.items():
        monkeypatch.setenv(variable, text)
    assert load_settings(Settings) == Settings()


def test_the_file_is_read(toml: Path) -> None:
    toml.write_text('[kafka]\nbootstrap = "k1:9092"\n[classifier.producers.cam]\nhigh_priority = true\n')
    settings = load_settings(Settings)
    assert settings.kafka.bootstrap == "k1:9092"
    assert settings.classifier.producer("cam").high_priority
    assert not settings.classifier.producer("other").high_priority


def test_the_environment_goes_before_the_file_field_by_field(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('[kafka]\nbootstrap = "file:1"\ntopic_prefix = "fromfile"\n')
    monkeypatch.setenv("MEDIASIEVE_KAFKA__BOOTSTRAP", "env:1")
    settings = load_settings(Settings)
    assert (settings.kafka.bootstrap, settings.kafka.topic_prefix) == ("env:1", "fromfile")


def test_all_faults_come_at_once_each_with_its_variable(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text("[health]\nport = 99999\n")
    monkeypatch.setenv("MEDIASIEVE_KAFKA__GROUP_PROTOCOL", "raft")
    monkeypatch.setenv("MEDIASIEVE_RUNNER__BATCH__MAX_ITEMS", "0")
    monkeypatch.setenv("MEDIASIEVE_NONSENSE", "1")
    text = faults()
    assert "MEDIASIEVE_NONSENSE: no such setting" in text
    assert "MEDIASIEVE_KAFKA__GROUP_PROTOCOL (in the file: kafka.group_protocol)" in text
    assert "MEDIASIEVE_RUNNER__BATCH__MAX_ITEMS (in the file: runner.batch.max_items)" in text
    assert "MEDIASIEVE_HEALTH__PORT (in the file: health.port)" in text
    assert len(text.splitlines()) == 4


@pytest.mark.parametrize("name", ["MEDIASIEVE_KAFKA__BOOTSTRAPS", "MEDIASIEVE_RUNNER__BATCH__SIZE"])
def test_an_unknown_nested_variable_is_a_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert name in faults()


def test_an_unknown_key_of_the_file_is_a_fault(toml: Path) -> None:
    toml.write_text('[kafka]\nbootstraps = "k1"\n[nonsense]\nx = 1\n')
    text = faults()
    assert "kafka.bootstraps" in text
    assert "nonsense" in text


def test_a_missing_file_is_a_fault(toml: Path) -> None:
    assert f"{CONFIG_VARIABLE}: no file at {toml}" in faults()


def test_a_fixed_librdkafka_setting_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_KAFKA__EXTRA", '{"isolation.level": "read_uncommitted"}')
    text = faults()
    assert "isolation.level: fixed by the worker" in text


def test_extra_librdkafka_settings_reach_every_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_KAFKA__EXTRA", '{"client.rack": "a"}')
    kafka = load_settings(Settings).kafka
    for config in (kafka.consumer("g"), kafka.reader(), kafka.plain_producer(), kafka.transactional_producer("t")):
        assert config["client.rack"] == "a"
    assert kafka.consumer("g")["isolation.level"] == "read_committed"


def test_the_openai_back_end_needs_its_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_MLLM__BACKEND", "openai")
    assert "give openai.base_url and openai.model" in faults()


def test_secrets_are_not_in_any_text_of_good_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_KAFKA__SASL_PASSWORD", SECRET)
    monkeypatch.setenv("MEDIASIEVE_KAFKA__SSL_KEY_PASSWORD", SECRET)
    monkeypatch.setenv("MEDIASIEVE_MLLM__OPENAI", f'{{"base_url": "http://m/v1", "model": "m", "api_key": "{SECRET}"}}')
    settings = load_settings(Settings)
    assert settings.kafka.consumer("g")["sasl.password"] == SECRET
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEDIASIEVE_KAFKA__SASL_PASSWORD", f'{{"not": "{SECRET}"}}'),
        ("MEDIASIEVE_KAFKA__EXTRA", f'{{"acks": "{SECRET}"}}'),
        ("MEDIASIEVE_KAFKA__EXTRA", f'{{"x": "{SECRET}"'),
        ("MEDIASIEVE_KAFKA", f'{{"sasl_passwort": "{SECRET}"}}'),
        ("MEDIASIEVE_HEALTH__PORT", SECRET),
    ],
)
def test_secrets_are_not_in_the_faults(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_KAFKA__TOPIC_PREFIX", "a.b")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(Settings)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
