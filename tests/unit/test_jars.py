"""The cache of Kafka's jars, with a resolver that fetches nothing."""

from __future__ import annotations

import hashlib
import importlib
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.streaming.kafka import jars
from pipeline.streaming.kafka.jars import JarsError, ensure_jars, read_lock, write_lock

CONTENT = {"kafka.jar": b"kafka", "log4j.jar": b"log4j"}


class FakeResolver:
    """Stands for jgo: writes CONTENT into its two folders and counts its calls."""

    def __init__(self) -> None:
        self.content = dict(CONTENT)
        self.calls = 0

    def build(self, endpoint: str, cache_dir: Path) -> SimpleNamespace:
        self.calls += 1
        print("noise of the resolver")
        for (name, data), kind in zip(self.content.items(), ("jars", "modules"), strict=False):
            (cache_dir / kind).mkdir(parents=True)
            (cache_dir / kind / name).write_bytes(data)
        return SimpleNamespace(path=cache_dir)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> FakeResolver:
    fake = FakeResolver()
    monkeypatch.setitem(sys.modules, "jgo", fake)
    lock = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    monkeypatch.setattr(jars, "read_lock", lambda: lock)
    return fake


def test_first_call_fetches_and_later_calls_ask_nobody(
    resolver: FakeResolver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "deep" / "kafka"
    assert [path.read_bytes() for path in ensure_jars(directory)] == [b"kafka", b"log4j"]
    assert ensure_jars(directory) == [directory / "kafka.jar", directory / "log4j.jar"]
    assert resolver.calls == 1
    assert capsys.readouterr().out == ""
    assert {path.name for path in directory.parent.iterdir()} == {"kafka", "kafka.lock"}


@pytest.mark.parametrize("change", [b"kafkb", b"kafka and more", b""])
def test_a_changed_jar_is_refused(resolver: FakeResolver, tmp_path: Path, change: bytes) -> None:
    directory = tmp_path / "kafka"
    ensure_jars(directory)
    (directory / "kafka.jar").write_bytes(change)
    with pytest.raises(JarsError, match=rf"kafka\.jar has sha256 .*: delete {directory} and run again"):
        ensure_jars(directory)


def test_a_changed_jar_is_not_hidden_by_fetching_another(resolver: FakeResolver, tmp_path: Path) -> None:
    directory = tmp_path / "kafka"
    ensure_jars(directory)
    (directory / "kafka.jar").write_bytes(b"changed")
    (directory / "log4j.jar").unlink()
    with pytest.raises(JarsError, match=r"kafka\.jar has sha256"):
        ensure_jars(directory)


def test_a_removed_jar_is_fetched_again(resolver: FakeResolver, tmp_path: Path) -> None:
    directory = tmp_path / "kafka"
    ensure_jars(directory)
    (directory / "log4j.jar").unlink()
    assert [path.read_bytes() for path in ensure_jars(directory)] == [b"kafka", b"log4j"]


def test_a_jar_that_resolves_otherwise_never_reaches_the_cache(resolver: FakeResolver, tmp_path: Path) -> None:
    resolver.content["log4j.jar"] = b"something else"
    with pytest.raises(JarsError, match=r"log4j\.jar was resolved with sha256 .* Maven repository"):
        ensure_jars(tmp_path / "kafka")
    assert not (tmp_path / "kafka" / "log4j.jar").exists()


def test_another_set_of_jars_is_refused(resolver: FakeResolver, tmp_path: Path) -> None:
    resolver.content = {"kafka.jar": b"kafka", "log5j.jar": b"log4j"}
    with pytest.raises(JarsError, match=r"other jars than the lock names: log4j\.jar, log5j\.jar"):
        ensure_jars(tmp_path / "kafka")


def test_callers_at_the_same_time_fetch_once(resolver: FakeResolver, tmp_path: Path) -> None:
    directory = tmp_path / "kafka"
    found: list[list[Path]] = []
    threads = [threading.Thread(target=lambda: found.append(ensure_jars(directory))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert resolver.calls == 1


def test_a_missing_extra_names_the_way_out(
    resolver: FakeResolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(JarsError, match=r"'jgo': install mediasieve\[embedded\]"):
        ensure_jars(tmp_path / "kafka")


def test_the_lock_is_written_and_read_back(
    resolver: FakeResolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock.json"
    assert write_lock(path) == 2
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    assert read_lock(path) == expected
    monkeypatch.setattr(jars, "COORDINATES", "other:coordinates:1")
    with pytest.raises(JarsError, match="jars lock"):
        read_lock(path)


def test_the_checked_in_lock_names_one_version_of_kafka() -> None:
    names = read_lock().keys()
    assert f"kafka_2.13-{jars.KAFKA_VERSION}.jar" in names
    others = [n for n in names if n.startswith("kafka") and not n.endswith(f"-{jars.KAFKA_VERSION}.jar")]
    assert others == []


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert jars.default_directory() == Path(f"/somewhere/mediasieve/kafka-{jars.KAFKA_VERSION}")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert jars.default_directory() == Path(f"/home/me/.cache/mediasieve/kafka-{jars.KAFKA_VERSION}")
