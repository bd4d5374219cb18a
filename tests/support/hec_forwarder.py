"""What a connector does between a topic and the collector, as small as it can be: at least once, in offset order.

It stands for Splunk Connect for Kafka with `splunk.hec.ack.enabled=true` and `splunk.hec.max.retries=-1`, whose
promise is that an offset is committed only after the acknowledgement of everything up to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx


@dataclass
class _Batch:
    first: int
    values: Sequence[bytes]
    attempts: int = 0
    finished: bool = False
    ack_id: int | None = None
    polls: int = 0

    @property
    def end(self) -> int:
        return self.first + len(self.values)


@dataclass
class Forwarder:
    """`committed` is the next offset to read after a restart. Time is counted in polls, `timeout_polls` an ack.

    `acks` False is the mistake that the documentation warns of: 200 is taken for indexed. So is a finite
    `max_retries`, after which a batch is dropped.
    """

    client: httpx.Client
    batch_size: int = 7
    window: int = 3
    timeout_polls: int = 6
    acks: bool = True
    max_retries: int = -1
    committed: int = 0
    channel: str = field(default_factory=lambda: str(uuid4()))

    def run(self, log: Sequence[bytes], rounds: int = 10_000) -> None:
        """Forward everything behind `committed`; at most `rounds` rounds of sending and polling.

        Raises:
            TimeoutError: the collector did not take it all in these rounds.
        """
        waiting: list[_Batch] = []
        read = self.committed
        for _ in range(rounds):
            while len(waiting) < self.window and read < len(log):
                waiting.append(_Batch(read, log[read : read + self.batch_size]))
                read = waiting[-1].end
            if not waiting:
                return
            self._round(waiting)
            while waiting and waiting[0].finished:
                self.committed = waiting.pop(0).end
        raise TimeoutError(f"committed {self.committed} of {len(log)} after {rounds} rounds")

    def _round(self, waiting: list[_Batch]) -> None:
        for batch in waiting:
            if batch.ack_id is None and not batch.finished:
                self._send(batch)
        acked = self._poll([b.ack_id for b in waiting if b.ack_id is not None and not b.finished])
        for batch in waiting:
            if batch.finished or batch.ack_id is None:
                continue
            batch.polls += 1
            if batch.ack_id in acked:
                batch.finished = True
            elif batch.polls >= self.timeout_polls:
                batch.ack_id = None

    def _send(self, batch: _Batch) -> None:
        if self.max_retries >= 0 and batch.attempts > self.max_retries:
            batch.finished = True  # dropped: what a finite number of retries means
            return
        batch.attempts, batch.polls = batch.attempts + 1, 0
        events = ({"event": json.loads(value), "sourcetype": "mediasieve:ocsf"} for value in batch.values)
        answer = self._ask("/services/collector/event", "".join(json.dumps(event) for event in events))
        if answer is not None:
            batch.ack_id = answer["ackId"]
            batch.finished = not self.acks

    def _poll(self, ids: list[int]) -> set[int]:
        if not ids:
            return set()
        answer = self._ask("/services/collector/ack", json.dumps({"acks": ids}))
        return {int(number) for number, indexed in answer["acks"].items() if indexed} if answer else set()

    def _ask(self, path: str, body: str) -> dict[str, Any] | None:
        try:
            answer = self.client.post(path, content=body, headers={"X-Splunk-Request-Channel": self.channel})
        except httpx.TransportError:
            return None
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return None
        answer.raise_for_status()
        loaded: dict[str, Any] = answer.json()
        return loaded
