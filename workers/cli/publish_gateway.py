"""`mediasieve publish --gateway`: files are uploaded, URIs submitted in batches, over HTTP."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mediasieve.client import Client, GatewayProblem, MediaReference
from schemas.api import Problem

BATCH = 100
"""References of one request; a key's burst must allow as many."""

_OF_THE_ITEM = frozenset({403, 409, 413, 415, 422})
"""Refusals after which the next item may be taken; any other is raised."""

NewReference = Callable[[str], MediaReference]
"""The reference to a URI, with the fields that all have in common."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one place: `media_id`, or why there is none."""

    place: str
    media_id: str | None
    problem: Problem | None = None


def submit(client: Client, places: Iterable[Path | str], reference: NewReference) -> Iterator[Submitted]:
    """One answer for each file and URI, in order.

    Raises:
        mediasieve.client.GatewayProblem: the gateway takes nothing of this caller now.
        mediasieve.client.GatewayUnavailable: it cannot be reached.
    """
    waiting: list[str] = []
    for place in places:
        if isinstance(place, str):
            waiting.append(place)
        if waiting and (len(waiting) == BATCH or isinstance(place, Path)):
            yield from _batch(client, waiting, reference)
            waiting = []
        if isinstance(place, Path):
            yield _upload(client, place, reference)
    if waiting:
        yield from _batch(client, waiting, reference)


def _batch(client: Client, uris: list[str], reference: NewReference) -> Iterator[Submitted]:
    answer = client.submit_batch([reference(uri) for uri in uris])
    for uri, item in zip(uris, answer.items, strict=True):
        yield Submitted(uri, item.accepted.media_id if item.accepted else None, item.problem)


def _upload(client: Client, file: Path, reference: NewReference) -> Submitted:
    fields = reference(file.as_uri()).model_dump(mode="json", exclude_defaults=True, exclude={"uri"})
    try:
        accepted = client.upload(file, content_type=mimetypes.guess_type(file.name)[0], **fields)
    except GatewayProblem as error:
        if error.problem.status not in _OF_THE_ITEM:
            raise
        return Submitted(str(file), None, error.problem)
    return Submitted(str(file), accepted.media_id)
