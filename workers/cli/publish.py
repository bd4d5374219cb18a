"""`mediasieve publish`: send references to the ingest topic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import orjson
import typer
from rich.console import Console

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.transport import OutRecord
from schemas.envelope import new_trace
from schemas.media import MediaReference
from schemas.topics import Topic
from schemas.types import Priority
from schemas.wire import decode
from workers.cli.common import Bootstrap, Json, print_json, settings_for


def publish(  # noqa: PLR0917 - typer names them
    places: Annotated[list[str], typer.Argument(help="Files, folders or URIs (http, https, s3, gs, az, file).")],
    bootstrap: Bootstrap = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant of all of them.")] = None,
    source: Annotated[str | None, typer.Option(help="Name of the producer.")] = None,
    priority: Annotated[Priority, typer.Option(help="Lane to ask for.")] = Priority.NORMAL,
    json: Json = False,
) -> None:
    """Publish references; each gets a media id of its own, which is printed.

    Workers read file:// only below their `classifier.fetch.file_roots`.

    Example: mediasieve publish photo.jpg https://example.org/a.png --tenant acme
    """
    settings = settings_for(bootstrap)
    writer = RecordWriter(settings.kafka)
    topic = TopicNames(settings.kafka.topic_prefix).physical(Topic.INGEST)
    for uri in (u for place in places for u in uris(place)):
        media_id = str(uuid4())
        fields = {"uri": uri, "media_id": media_id, "tenant": tenant, "source": source, "priority": priority}
        value = orjson.dumps({k: v for k, v in fields.items() if v is not None})
        decode(MediaReference, value)
        trace = new_trace(media_id).format()
        writer.write(OutRecord(topic, media_id.encode(), value, (("traceparent", trace.encode()),)))
        if json:
            print_json({"media_id": media_id, "uri": uri})
        else:
            Console().print(f"{media_id}  {uri}", soft_wrap=True, highlight=False)
    writer.flush()


def uris(place: str) -> Iterator[str]:
    """A URI as it is; a file as file://; a folder's files, below it at any depth, in order."""
    path = Path(place)
    if path.is_dir():
        yield from (p.resolve().as_uri() for p in sorted(path.rglob("*")) if p.is_file())
    elif path.exists():
        yield path.resolve().as_uri()
    elif "://" in place or place.startswith("file:"):
        yield place
    else:
        raise typer.BadParameter(f"{place}: no such file or folder, and no URI")
