"""`mediasieve publish`: send references to the ingest topic, or to a gateway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console

from mediasieve.client import Client
from pipeline.settings import SettingsInvalid
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import OutRecord
from schemas.envelope import new_trace
from schemas.media import MediaReference
from schemas.topics import Topic
from schemas.types import Priority
from schemas.wire import describe, encode
from workers.cli.common import Bootstrap, Json, print_json, settings_for
from workers.cli.publish_gateway import NewReference, Submitted, submit

Gateway = Annotated[
    str | None,
    typer.Option(help="URL of an ingest gateway, in place of Kafka; its key is MEDIASIEVE_CLIENT__TOKEN."),
]


def publish(  # noqa: PLR0917 - typer names them
    places: Annotated[list[str], typer.Argument(help="Files, folders or URIs (http, https, s3, gs, az, file).")],
    bootstrap: Bootstrap = None,
    gateway: Gateway = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant of all of them.")] = None,
    source: Annotated[str | None, typer.Option(help="Name of the producer.")] = None,
    priority: Annotated[Priority, typer.Option(help="Lane to ask for.")] = Priority.NORMAL,
    json: Json = False,
) -> None:
    """Publish references; each gets a media id of its own, which is printed.

    To Kafka files go as file:// URIs: workers read those only below their `classifier.fetch.file_roots`. To a gateway
    files are uploaded. Ends with 1 when the gateway refused some.

    Example: mediasieve publish photo.jpg https://example.org/a.png --tenant acme
    """
    if gateway is not None and bootstrap is not None:
        raise typer.BadParameter("give --gateway or --bootstrap, not both")
    settings = settings_for(bootstrap)
    new = partial(_reference, tenant=tenant, source=source, priority=priority)
    found = [each for place in places for each in files_and_uris(place)]
    if gateway is None:
        _to_kafka(settings.kafka, [each if isinstance(each, str) else each.as_uri() for each in found], new, json)
    else:
        _to_gateway(gateway, settings.client.token, found, new, json)


def _to_kafka(kafka: KafkaSettings, uris: Sequence[str], new: NewReference, json: bool) -> None:
    writer = RecordWriter(kafka)
    topic = TopicNames(kafka.topic_prefix).physical(Topic.INGEST)
    for uri in uris:
        media_id = str(uuid4())
        value = encode(new(uri).model_copy(update={"media_id": media_id}))
        trace = new_trace(media_id).format()
        writer.write(OutRecord(topic, media_id.encode(), value, (("traceparent", trace.encode()),)))
        _say(Submitted(uri, media_id), json)
    writer.flush()


def _to_gateway(url: str, token: SecretStr | None, found: Sequence[Path | str], new: NewReference, json: bool) -> None:
    if token is None:
        raise SettingsInvalid(
            "MEDIASIEVE_CLIENT__TOKEN (in the file: client.token): the gateway asks for a key; "
            "`mediasieve apikeys create` makes one"
        )
    refused = 0
    with Client(url, token.get_secret_value()) as client:
        for each in submit(client, found, new):
            _say(each, json)
            refused += each.media_id is None
    if refused:
        raise typer.Exit(1)


def _reference(uri: str, tenant: str | None, source: str | None, priority: Priority) -> MediaReference:
    try:
        return MediaReference(uri=uri, tenant=tenant, source=source, priority=priority)
    except ValidationError as error:
        raise typer.BadParameter(describe(error)) from error


def _say(each: Submitted, json: bool) -> None:
    if json:
        row = {"media_id": each.media_id, "uri": each.place}
        print_json(row | ({"problem": each.problem.model_dump(mode="json")} if each.problem else {}))
    elif each.problem is None:
        Console().print(f"{each.media_id}  {each.place}", soft_wrap=True, highlight=False, markup=False)
    else:
        text = f"refused: {each.place}: {each.problem.status} {each.problem.title}: {each.problem.detail}"
        Console(stderr=True).print(text, soft_wrap=True, highlight=False, markup=False, style="red")


def files_and_uris(place: str) -> Iterator[Path | str]:
    """A URI as it is; a file; a folder's files, below it at any depth, in order."""
    path = Path(place)
    if path.is_dir():
        yield from (p.resolve() for p in sorted(path.rglob("*")) if p.is_file())
    elif path.exists():
        yield path.resolve()
    elif "://" in place or place.startswith("file:"):
        yield place
    else:
        raise typer.BadParameter(f"{place}: no such file or folder, and no URI")
