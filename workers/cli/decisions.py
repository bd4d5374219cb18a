"""`mediasieve decisions`: what the fleet decided, as the SIEM sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.text import Text

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.transport import RawRecord
from schemas.decision import Decision, Outcome
from schemas.ocsf import decode_finding, machine_decision
from schemas.siem import cef_line, ecs_document
from schemas.topics import DECISION_TOPICS
from schemas.wire import UnknownMajorVersion, WireError
from workers.cli.common import Bootstrap, Json, settings_for
from workers.explain.visible import on_one_line

_STYLE = {Outcome.BLOCK: "bold red", Outcome.ESCALATE: "yellow", Outcome.PASS: "green"}


class Format(StrEnum):
    """What a SIEM takes, one event a line."""

    OCSF = "ocsf"
    ECS = "ecs"
    CEF = "cef"


_WRITE: dict[Format, Callable[[bytes], bytes]] = {
    Format.OCSF: bytes,
    Format.ECS: lambda value: orjson.dumps(ecs_document(decode_finding(value))),
    Format.CEF: lambda value: cef_line(decode_finding(value)).encode(),
}


def decisions(
    bootstrap: Bootstrap = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Only what comes from now on.")] = False,
    json: Json = False,
    form: Annotated[
        Format | None, typer.Option("--format", help="OCSF byte for byte, as --json; or an ECS document or CEF line.")
    ] = None,
) -> None:
    """Print decisions; --json gives the OCSF Detection Findings byte for byte.

    Example: mediasieve decisions --follow --json | jq .severity
    """
    form = form or (Format.OCSF if json else None)
    settings = settings_for(bootstrap)
    names = TopicNames(settings.kafka.topic_prefix)
    topics = [names.physical(t) for t in DECISION_TOPICS.values()]
    with RecordReader(settings.kafka, topics, from_end=new) as reader:
        try:
            if not follow:
                for record in reader.to_end():
                    _print(record, form)
                return
            while True:
                found = reader.poll(0.2)
                if found is not None:
                    _print(found, form)
        except KeyboardInterrupt:
            return


def describe(decision: Decision) -> Text:
    """One line for a person."""
    admission = decision.admission
    scores = " ".join(f"{s.stage}={s.score:.2f}" if s.score is not None else f"{s.stage}=-" for s in decision.scores)
    outcome = f"{decision.outcome}{f'/{decision.risk}' if decision.risk else ''}"
    line = Text(f"{outcome:<17}", style=_STYLE[decision.outcome])
    told = f" {admission.media_id}  {decision.reasons[0].code}  {scores}  {admission.uri}"
    line.append(on_one_line(told), style="default")
    return line


def _by_people(value: bytes) -> Text:
    finding = decode_finding(value)
    admission = finding.unmapped.mediasieve.admission
    who = f" by {finding.assignee.name}" if finding.assignee else ""
    told = f"{finding.disposition.lower():<17} {admission.media_id}  {finding.message}{who}"
    return Text(on_one_line(told))


def _told(value: bytes) -> Text:
    decision = machine_decision(value)
    return _by_people(value) if decision is None else describe(decision)


def _print(record: RawRecord, form: Format | None) -> None:
    """What this release cannot read is named on stderr; the next may be readable again."""
    try:
        if form is None:
            Console(soft_wrap=True).print(_told(record.value))
            return
        line = _WRITE[form](record.value)
    except (WireError, UnknownMajorVersion) as error:
        place = f"{record.tp.topic}[{record.tp.partition}]@{record.offset}"
        why = on_one_line(f"mediasieve: {place} was passed over: {error}; upgrade, or read it with --json")
        Console(stderr=True).print(why, style="yellow", markup=False, highlight=False, soft_wrap=True)
        return
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
