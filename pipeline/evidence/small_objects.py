"""The small JSON objects of archive and legal holds."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from pipeline.media.errors import ContentCorrupt, ContentMissing
from pipeline.media.objects import Objects
from schemas.base import Part
from schemas.wire import describe

P = TypeVar("P", bound=Part)


def parse_object(model: type[P], data: bytes, key: str) -> P:
    """One of the small JSON objects, ignoring what a newer release added. Raises ContentCorrupt, naming the object."""
    try:
        return model.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        raise ContentCorrupt(f"{key}: {describe(error)}") from error


def keep_object(objects: Objects, key: str, content: Part) -> None:
    """Put if absent, safe from a power cut on local disk too; what such a cut left there unreadable is put over.

    Raises:
        StoreUnavailable: perhaps not put; do it again.
    """
    data = content.model_dump_json().encode()
    if not objects.create(key, data):
        try:
            parse_object(type(content), objects.read(key), key)
        except (ContentMissing, ContentCorrupt):
            objects.replace(key, data)
    objects.sync(key)
