"""Parts of `mediasieve audit` that speak of the whole log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf, gap_leaf
from pipeline.evidence.log.verify_all import Verification, verify_all
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import PartitionId, TopicAdmin
from schemas.topics import Topic
from workers.audit.completeness import compare_with_kafka
from workers.audit.log import LogPlace, kept_checkpoints
from workers.audit.worker import open_writer
from workers.cli.audit_common import EXIT_FALSE, EXIT_NOT_FOUND, Key, keys_from, log_place, plainly, say
from workers.cli.common import Bootstrap, Json, print_json, settings_for


def verify_log(key: Path | None, kept: list[Path], bootstrap: str | None, *, kafka: bool, json: bool) -> None:
    """Re-read every tree and, with `kafka`, every audited topic; exits 1 when something does not hold."""
    place, keys = log_place(), keys_from(key)
    checkpoints = kept_checkpoints(kept, keys, place.settings.log_name)
    trees = place.trees()
    trees += _gone(place, trees, {*checkpoints, *keys.retired_origins()})
    if not trees:
        name = place.settings.log_name
        say(f"{place.url} has no tree of {name}: wrong audit.url or log_name, or all of it is gone", error=True)
        raise typer.Exit(EXIT_NOT_FOUND)
    good, leaves = True, 0
    for tree in trees:
        found = verify_all(place.tree(tree), place.origin(tree), keys, kept=checkpoints.get(place.origin(tree), ()))
        good &= found.ok
        leaves += found.entries
        _tell(found, json=json)
    if kafka:
        good &= _verify_complete(place, keys, bootstrap, json=json)
    if not json and good:
        say(f"{leaves} leaves in {len(trees)} trees: all hashes, checkpoints, indices and offsets hold")
    if not good:
        raise typer.Exit(EXIT_FALSE)


def _gone(place: LogPlace, trees: list[str], origins: set[str]) -> list[str]:
    """Trees of this log that a kept checkpoint or a retired key names, and that are not there."""
    prefix = place.origin("")
    return sorted({origin.removeprefix(prefix) for origin in origins if origin.startswith(prefix)} - set(trees))


def _tell(found: Verification, *, json: bool) -> None:
    faults = [fault.message for fault in found.faults]
    if json:
        row = {"origin": found.origin, "ok": found.ok, "leaves": found.entries}
        print_json(row | {"first_bad_index": found.first_bad_index, "faults": faults})
    elif not found.ok:
        where = "" if found.first_bad_index is None else f", first bad index {found.first_bad_index}"
        say(f"{found.origin}: DOES NOT HOLD{where}: {faults[0]}")


def _verify_complete(place: LogPlace, keys: KeySet, bootstrap: str | None, *, json: bool) -> bool:
    compared = compare_with_kafka(place, keys, settings_for(bootstrap).kafka)
    for one in compared:
        if json:
            print_json(
                {
                    "tree": one.tree,
                    "complete": one.ok,
                    "compared": one.compared,
                    "pending": one.pending,
                    "missing": one.missing,
                    "foreign": one.foreign,
                    "differing": one.differing,
                }
            )
        elif not one.ok:
            say(f"{one.tree}: DIFFERS from Kafka: {one.detail}")
    good = all(one.ok for one in compared)
    if not json and good:
        same, pending = sum(one.compared for one in compared), sum(one.pending for one in compared)
        say(f"{same} records that Kafka still holds are in the log, each once and alike; {pending} wait for their leaf")
    return good


def status(
    save: Annotated[Path | None, typer.Option(help="Folder to keep every tree's signed checkpoint in.")] = None,
    kafka: Annotated[bool, typer.Option("--kafka", help="Also ask Kafka how far the log is behind.")] = False,
    key: Key = None,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Every tree: leaves, last offset, root, and with --kafka the records (markers counted) that are not logged yet.

    Example: mediasieve audit status --save /mnt/auditor/2026-11
    """
    with plainly():
        place, keys = log_place(), keys_from(key)
        trees = place.trees()
        ends = _ends(bootstrap, trees) if kafka else {}
        table = Table("tree", "leaves", "last offset", "behind", "root")
        for tree in trees:
            reader = place.reader(tree, keys)
            head = reader.checkpoint()
            last = Leaf.parse(reader.entry(head.size - 1)).offset if head.size else -1
            behind = ends[tree] - last - 1 if tree in ends else None
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
                (save / f"{tree.replace('/', '-')}.checkpoint").write_bytes(reader.signed_checkpoint())
            root = head.root.hex()
            if json:
                print_json({"tree": tree, "leaves": head.size, "last_offset": last, "behind": behind, "root": root})
            else:
                table.add_row(tree, str(head.size), str(last), "" if behind is None else str(behind), root[:16])
        if not json:
            Console().print(table if table.row_count else "no tree has a leaf yet")


def accept_gap(
    topic: Annotated[Topic, typer.Argument(help="As the worker's error says.")],
    partition: Annotated[int, typer.Argument(min=0)],
    until: Annotated[int, typer.Option(help="Oldest offset that Kafka still keeps, as the error says.", min=1)],
) -> None:
    """Log one leaf that says: these records were removed from Kafka before they were logged. It cannot be taken back.

    For an audit worker that stopped with exit code 10. A worker that runs meanwhile ends with exit code 8.

    Example: mediasieve audit accept-gap decisions.block 0 --until 1200
    """
    with plainly():
        settings = settings_for(None)
        log = open_writer(settings)(f"{topic}/{partition}")
        entry = log.last_entry()
        first = Leaf.parse(entry).offset + 1 if entry is not None else 0
        if first >= until:
            raise typer.BadParameter(f"the log has leaves up to offset {first - 1}: nothing is missing below {until}")
        log.append([gap_leaf(topic, partition, first, until).encode()])
        say(f"{topic}/{partition}: leaf {log.size - 1} says that offsets {first} to {until - 1} were never logged")


def _ends(bootstrap: str | None, trees: list[str]) -> dict[str, int]:
    kafka = settings_for(bootstrap).kafka
    names = TopicNames(kafka.topic_prefix)
    topics = sorted({tree.rpartition("/")[0] for tree in trees})
    ends = TopicAdmin(kafka.common()).end_offsets([names.physical(Topic(topic)) for topic in topics])
    return {
        tree: ends[place]
        for tree in trees
        if (place := PartitionId(names.physical(Topic(tree.rpartition("/")[0])), int(tree.rpartition("/")[2]))) in ends
    }
