"""The embedded broker: its data, its death, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import jgo
import pytest

from pipeline.streaming.kafka import jars
from pipeline.streaming.kafka.admin import AdminError, TopicAdmin
from pipeline.streaming.kafka.embedded import BrokerError, EmbeddedKafka, _free_ports
from schemas.topics import TOPICS, Topic
from tests.support.kafka import TIMEOUT_S, create_topics, produce, read_all
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

PARENT = """
import sys
from pathlib import Path
from pipeline.streaming.kafka.embedded import EmbeddedKafka
kafka = EmbeddedKafka(data_dir=Path(sys.argv[1]), keep=sys.argv[2] == "keep")
kafka.start()
print(*kafka.pids, flush=True)
if sys.argv[3] == "wait":
    sys.stdin.read()
"""


def values(kafka: EmbeddedKafka, topic: str, count: int) -> list[bytes]:
    return [message.value() or b"" for message in read_all(kafka.bootstrap, [topic], count)]


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie that init has not collected yet has ended too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_later_start_on_the_same_folder_finds_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedKafka(data_dir=tmp_path) as kafka:
        name = create_topics(kafka.bootstrap, "")[Topic.INGEST]
        produce(kafka.bootstrap, name, [b"1", b"2"])
        pids = kafka.pids
    assert all(gone(pid) for pid in pids)

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the second start asked the resolver")

    monkeypatch.setattr(jgo, "build", no_network)
    with EmbeddedKafka(data_dir=tmp_path) as kafka:
        produce(kafka.bootstrap, name, [b"3"])
        assert values(kafka, name, 3) == [b"1", b"2", b"3"]
    with pytest.raises(BrokerError, match="the data of 1 brokers, not of 3"):
        EmbeddedKafka(brokers=3, data_dir=tmp_path).start()


def test_restart_and_kill_9_keep_port_and_records() -> None:
    with EmbeddedKafka() as own:
        name = create_topics(own.bootstrap, "")[Topic.INGEST]
        bootstrap, pids = own.bootstrap, own.pids
        produce(own.bootstrap, name, [b"1"])
        own.restart()
        pids += own.pids
        produce(own.bootstrap, name, [b"2"])
        own.kill()
        assert own.pids == []
        own.restart()
        produce(own.bootstrap, name, [b"3"])
        assert values(own, name, 3) == [b"1", b"2", b"3"]
        assert own.bootstrap == bootstrap
        assert all(gone(pid) for pid in pids)


def test_two_at_once_and_a_temporary_folder_that_goes(kafka: EmbeddedKafka) -> None:
    with EmbeddedKafka() as own:
        name = create_topics(own.bootstrap, "two-at-once")[Topic.INGEST]
        with pytest.raises(AdminError, match="no such topic"):
            TopicAdmin({"bootstrap.servers": kafka.bootstrap}).end_offsets([name])
        pids, folder = own.pids, own.data_dir
        assert folder.is_dir()
    assert not folder.exists()
    assert all(gone(pid) for pid in pids)
    assert kafka.pids


def test_a_port_taken_meanwhile_makes_it_choose_others(monkeypatch: pytest.MonkeyPatch, kafka: EmbeddedKafka) -> None:
    taken = int(kafka.bootstrap.rpartition(":")[2])
    choices = [[_free_ports(1)[0], taken]]
    monkeypatch.setattr(
        "pipeline.streaming.kafka.embedded._free_ports",
        lambda count: choices.pop() if choices else _free_ports(count),
    )
    with EmbeddedKafka() as own:
        assert choices == []
        assert own.bootstrap != kafka.bootstrap


def test_an_error_shows_the_log_and_its_path(tmp_path: Path) -> None:
    (tmp_path / "broker-1").mkdir()
    (tmp_path / "broker-1" / "data").write_text("a file where Kafka wants a folder")
    kafka = EmbeddedKafka(data_dir=tmp_path)
    with pytest.raises(BrokerError, match=r"cannot format its folder; .*server\.log ends with:\n.+") as raised:
        kafka.start()
    assert str(tmp_path / "broker-1" / "server.log") in str(raised.value)
    assert kafka.pids == []


def test_a_broker_does_not_outlive_its_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), "no", "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    wait_until(lambda: gone(pid), TIMEOUT_S, "the broker ends after its parent")


def test_with_keep_the_broker_stays(tmp_path: Path) -> None:
    parent = subprocess.run(
        [sys.executable, "-c", PARENT, str(tmp_path), "keep", "exit"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    pid = int(parent.stdout)
    try:
        assert not gone(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid), TIMEOUT_S, "the kept broker ends")


@pytest.mark.soak  # half a minute; the broker-death tests kill brokers of three in make test too
@pytest.mark.fault
def test_three_brokers_keep_every_record_when_one_is_killed() -> None:
    with EmbeddedKafka(brokers=3) as kafka:
        admin = TopicAdmin({"bootstrap.servers": kafka.bootstrap}, TIMEOUT_S)
        admin.apply(TOPICS, 3, 3)
        for partition in range(3):
            produce(kafka.bootstrap, Topic.INGEST, [b"before"], partition)
        kafka.kill(1)
        for partition in range(3):
            produce(kafka.bootstrap, Topic.INGEST, [b"while down"], partition)
        kafka.restart(1)
        assert sorted(values(kafka, Topic.INGEST, 6)) == [b"before"] * 3 + [b"while down"] * 3
        assert len(kafka.pids) == 3


def test_the_real_jars_match_the_lock() -> None:
    assert len(jars.ensure_jars()) == len(jars.read_lock())
