"""A Splunk HTTP Event Collector in memory that follows a script: what it does with each batch, and with each poll.

The protocol is that of Splunk's "HTTP Event Collector indexer acknowledgment": a post on a channel is answered with
an `ackId`, a poll of the channel says which of the asked ids are indexed. An id that was once told is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

BASE_URL = "https://splunk.test:8088"
TOKEN = "token"


class Post(StrEnum):
    """What happens to one batch."""

    FINE = "fine"
    BUSY = "busy"
    """503 before anything is read."""
    UNREACHABLE = "unreachable"
    """The connection breaks before the batch arrives."""
    REPLY_LOST = "reply lost"
    """It is indexed, but the connection breaks before the answer."""
    VANISHES = "vanishes"
    """It is accepted, and lost with the indexer's memory: never indexed, never acknowledged."""
    ACK_LOST = "ack lost"
    """It is indexed and never acknowledged."""
    ACK_LATE = "ack late"
    """It is indexed, and acknowledged from the fourth poll on."""
    TWICE = "twice"
    """The indexer stores it twice."""


class Poll(StrEnum):
    """What happens to one poll for acknowledgements."""

    FINE = "fine"
    BUSY = "busy"
    REPLY_LOST = "reply lost"
    """The ids are told, and forgotten, but the answer does not arrive."""


@dataclass
class _Ack:
    polls_left: int
    known: bool = True


@dataclass
class HecEndpoint:
    """Follows both scripts, then does everything well. `indexed` is what a search would find, duplicates included."""

    posts: Iterator[Post] = field(default_factory=lambda: iter(()))
    polls: Iterator[Poll] = field(default_factory=lambda: iter(()))
    indexed: list[dict[str, Any]] = field(default_factory=list)
    done: list[Post | Poll] = field(default_factory=list)
    _acks: dict[str, list[_Ack]] = field(default_factory=dict)

    def client(self) -> httpx.Client:
        """A client of this endpoint; no socket is opened."""
        headers = {"Authorization": f"Splunk {TOKEN}"}
        return httpx.Client(base_url=BASE_URL, headers=headers, transport=httpx.MockTransport(self.handle))

    def uids(self) -> list[str]:
        """`metadata.uid` of each indexed event."""
        return [event["metadata"]["uid"] for event in self.indexed]

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request as the script says."""
        if request.headers.get("Authorization") != f"Splunk {TOKEN}":
            return _answer(403, "Invalid token", 4)
        channel = request.headers.get("X-Splunk-Request-Channel")
        if channel is None:
            return _answer(400, "Data channel is missing", 10)
        if request.url.path == "/services/collector/event":
            return self._post(request, channel)
        if request.url.path == "/services/collector/ack":
            return self._poll(request, channel)
        return _answer(404, "Not found", 404)

    def _post(self, request: httpx.Request, channel: str) -> httpx.Response:
        how = next(self.posts, Post.FINE)
        self.done.append(how)
        if how is Post.UNREACHABLE:
            raise httpx.ConnectError("scripted: unreachable", request=request)
        if how is Post.BUSY:
            return _answer(503, "Server is busy", 9)
        events = list(_events(request.content.decode()))
        if not events:
            return _answer(400, "No data", 5)
        if how is not Post.VANISHES:
            self.indexed += events * (2 if how is Post.TWICE else 1)
        if how is Post.REPLY_LOST:
            raise httpx.ReadError("scripted: reply lost", request=request)
        acks = self._acks.setdefault(channel, [])
        never = how in (Post.VANISHES, Post.ACK_LOST)
        acks.append(_Ack(polls_left=3 if how is Post.ACK_LATE else 0, known=not never))
        return httpx.Response(200, json={"text": "Success", "code": 0, "ackId": len(acks) - 1})

    def _poll(self, request: httpx.Request, channel: str) -> httpx.Response:
        how = next(self.polls, Poll.FINE)
        self.done.append(how)
        if how is Poll.BUSY:
            return _answer(503, "Server is busy", 9)
        asked = json.loads(request.content)["acks"]
        told = {str(number): self._tell(channel, number) for number in asked}
        if how is Poll.REPLY_LOST:
            raise httpx.ReadError("scripted: reply lost", request=request)
        return httpx.Response(200, json={"acks": told})

    def _tell(self, channel: str, number: int) -> bool:
        acks = self._acks.get(channel, [])
        if number >= len(acks) or not acks[number].known:
            return False
        ack = acks[number]
        if ack.polls_left:
            ack.polls_left -= 1
            return False
        ack.known = False
        return True


def _events(body: str) -> Iterator[dict[str, Any]]:
    """The `event` of each of the JSON objects that follow one another in a batch."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(body):
        wrapped, at = decoder.raw_decode(body, at)
        event = wrapped["event"]
        yield json.loads(event) if isinstance(event, str) else event


def _answer(status: int, text: str, code: int) -> httpx.Response:
    return httpx.Response(status, json={"text": text, "code": code})
