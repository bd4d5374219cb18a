"""`mediasieve demo`: a real broker, the whole fleet and real images, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import orjson
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.settings import SettingsInvalid, load_settings
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import TopicAdmin
from pipeline.streaming.kafka.client import RecordReader, RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.transport import OutRecord
from schemas.envelope import new_trace
from schemas.topics import DECISION_TOPICS, TOPICS, Topic
from workers.cli.common import Json, print_json
from workers.demo_audit import AuditOutcome, audit_environment, check_audit
from workers.demo_media import DemoItem, make_demo_media
from workers.demo_run import Tally
from workers.fleet import Fleet, FleetFailed, sigterm_is_ctrl_c
from workers.names import DECIDING, WorkerName
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.demo_people import PeopleSide

_PARTITIONS = 4


def demo(
    *,
    bootstrap: Annotated[
        str | None, typer.Option(help="Use this Kafka (host:port), under a topic prefix of its own.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave broker and fleet running until Ctrl-C.")] = False,
    people: Annotated[
        bool,
        typer.Option(
            "--people", help="Run gateway, console and adaptation worker too, with access for you; keeps all."
        ),
    ] = False,
    json: Json = False,
    directory: Annotated[Path, typer.Option(help="Media, evidence and logs go below this folder.")] = Path("var/demo"),
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for all decisions.", min=1)] = 180.0,
) -> None:
    """Start Kafka and the fleet, publish sample media, show every decision, verify the audit log.

    Exit 0 only if every reference reached exactly one decision or dead letter, and the log holds every decision.

    Example: mediasieve demo --people
    """
    home = (directory / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")).resolve()
    media = make_demo_media(home / "media")
    console = Console(stderr=json)
    with ExitStack() as stack:
        stack.enter_context(sigterm_is_ctrl_c())
        kafka = _kafka(bootstrap, home, console, stack)
        side = _people(home) if people else None
        environment = _environment(kafka, home) | (side.environment if side else {})
        workers = WorkerName if people else DECIDING
        fleet = stack.enter_context(Fleet(dict.fromkeys(workers, 1), environment, home / "logs"))
        console.print(f"starting {len(fleet.members)} workers ...")
        fleet.wait_ready()
        tally = Tally(
            {f"demo-{i:02d}-{uuid4().hex[:6]}": item for i, item in enumerate(media)}, TopicNames(kafka.topic_prefix)
        )
        _publish(tally, kafka)
        _watch(tally, kafka, fleet, console, timeout_s)
        audit = check_audit(home, kafka)
        _report(tally, audit, home, kafka, console, json=json)
        for line in side.welcome(fleet) if side else ():
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        if keep or people:
            _stay(fleet, kafka, console)
    raise typer.Exit(0 if tally.complete and audit.ok else 1)


def _kafka(bootstrap: str | None, home: Path, console: Console, stack: ExitStack) -> KafkaSettings:
    base = load_settings(Settings).kafka
    if bootstrap is None:
        console.print("starting a Kafka broker (the first time, its jars are downloaded) ...")
        broker = stack.enter_context(EmbeddedKafka(data_dir=home / "kafka"))
        settings = base.model_copy(update={"bootstrap": broker.bootstrap})
    else:
        settings = base.model_copy(update={"bootstrap": bootstrap, "topic_prefix": f"demo-{uuid4().hex[:8]}"})
    TopicAdmin(settings.common()).apply(TOPICS, _PARTITIONS, 1, settings.topic_prefix)
    return settings


def _people(home: Path) -> PeopleSide:
    try:
        from workers.demo_people import PeopleSide  # noqa: PLC0415 - its packages come with [web]
    except ModuleNotFoundError as error:
        raise SettingsInvalid(f"{error.name} is not installed; pip install 'mediasieve[web]'") from error
    return PeopleSide.prepare(home)


def _environment(kafka: KafkaSettings, home: Path) -> dict[str, str]:
    return {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
        "MEDIASIEVE_CLASSIFIER__FETCH__FILE_ROOTS": orjson.dumps([str(home / "media")]).decode(),
        **audit_environment(home),
    }


def _publish(tally: Tally, kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    topic = tally.names.physical(Topic.INGEST)
    for media_id, item in tally.items.items():
        value = orjson.dumps({"uri": item.path_or_uri, "media_id": media_id, "source": "demo"})
        trace = new_trace(media_id).format().encode()
        writer.write(OutRecord(topic, media_id.encode(), value, (("traceparent", trace),)))
    writer.flush()


def _watch(tally: Tally, kafka: KafkaSettings, fleet: Fleet, console: Console, timeout_s: float) -> None:
    """Read the decision topics as any consumer would until all is answered; then count once more from the start."""
    topics = [tally.names.physical(t) for t in (*DECISION_TOPICS.values(), Topic.DEAD_LETTER)]
    end_s = time.monotonic() + timeout_s
    with RecordReader(kafka, topics) as reader, _live(tally, console) as show:
        while tally.pending and time.monotonic() < end_s:
            fleet.check()
            record = reader.poll(0.2)
            if record is not None:
                show(tally.add(record))
    if tally.pending:
        raise FleetFailed(f"no answer for {len(tally.pending)} of {len(tally.items)} references in {timeout_s:.0f} s")
    tally.forget()
    with RecordReader(kafka, topics) as fresh:
        for record in fresh.to_end():
            tally.add(record)


@contextmanager
def _live(tally: Tally, console: Console) -> Iterator[Callable[[str | None], None]]:
    if not console.is_terminal:

        def print_line(media_id: str | None) -> None:
            if media_id is not None:
                console.print("  ".join(_cells(tally, media_id)), soft_wrap=True, highlight=False)

        yield print_line
        return
    with Live(_table(tally), console=console, auto_refresh=False) as live:

        def redraw(media_id: str | None) -> None:
            if media_id is not None:
                live.update(_table(tally), refresh=True)

        yield redraw


def _table(tally: Tally) -> Table:
    table = Table("media", "kind", "outcome", "exit", "scores", "reason", title="decisions")
    for media_id in tally.items:
        table.add_row(*_cells(tally, media_id))
    return table


def _cells(tally: Tally, media_id: str) -> tuple[str, str, str, str, str, str]:
    item: DemoItem = tally.items[media_id]
    name = item.path_or_uri.rsplit("/", 1)[-1][:40]
    if tally.letters.get(media_id):
        letter = tally.letters[media_id][0]
        return name, item.kind, "dead letter", letter.stage, "", letter.code.value
    if not tally.decisions.get(media_id):
        return name, item.kind, "...", "", "", ""
    decision = tally.decisions[media_id][0]
    scores = " ".join(f"{s.score:.2f}" if s.score is not None else "-" for s in decision.scores)
    outcome = f"{decision.outcome}{f'/{decision.risk}' if decision.risk else ''}"
    return name, item.kind, outcome, decision.stage_exited, scores, decision.reasons[0].code.value


def _report(
    tally: Tally, audit: AuditOutcome, home: Path, kafka: KafkaSettings, console: Console, *, json: bool
) -> None:
    summary = tally.summary() | {"store": str(home / "store"), "logs": str(home / "logs"), "bootstrap": kafka.bootstrap}
    summary["audit"] = audit.summary()
    if json:
        print_json(summary)
        return
    console.print()
    for title in ("outcomes", "stage_exited", "reasons", "dead_letters"):
        counts = ", ".join(f"{name} {n}" for name, n in sorted(summary[title].items())) or "none"
        console.print(f"{title.replace('_', ' '):>13}: {counts}", highlight=False)
    for stage, figures in summary["latency_ms"].items():
        console.print(
            f"{stage:>13}: p50 {figures['p50']} ms, p95 {figures['p95']} ms (n={figures['n']})", highlight=False
        )
    panels = sorted((home / "store" / "evidence").rglob("*.png"))
    console.print(
        f"{'evidence':>13}: {home / 'store'} ({len(panels)} spectral panels, e.g. {panels[0] if panels else '-'})",
        soft_wrap=True,
    )
    console.print(f"{'audit log':>13}: {audit}", soft_wrap=True, highlight=False)
    console.print(f"{'logs':>13}: {home / 'logs'}", soft_wrap=True)
    state = "every reference has exactly one answer" if tally.complete else f"doubled: {tally.doubled}"
    console.print(f"{len(tally.items)} references published, {state}")


def _stay(fleet: Fleet, kafka: KafkaSettings, console: Console) -> None:
    prefix = f"MEDIASIEVE_KAFKA__TOPIC_PREFIX={kafka.topic_prefix} " if kafka.topic_prefix else ""
    console.print(
        f"still running; in another terminal: {prefix}mediasieve decisions --bootstrap {kafka.bootstrap} --follow"
    )
    try:
        while True:
            fleet.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("stopping")
