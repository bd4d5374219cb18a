"""What the runner tells of itself; metrics, logs and health listen by overriding what they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.streaming.lag import Lag
from pipeline.streaming.partitions import Entry
from pipeline.streaming.stage import Defer, Reject


class Watch:
    """Hears nothing. Called from the runner's thread: an override must be quick and must not raise."""

    def warm(self) -> None:
        """Stage and ledger are open, the group is being joined."""

    def turn(self, oldest_in_flight_s: float, in_flight: int, partitions: int) -> None:
        """The loop turns."""

    def rebalance(self, kind: str, partitions: int) -> None:
        """`kind`: assigned, revoked or lost."""

    def lag(self, topics: Mapping[str, Lag]) -> None:
        """How far this member is behind, by topic; about once a second."""

    def batch(self, items: int, waited_s: float) -> None:
        """A batch went to the executor; `waited_s` since its first item was polled."""

    def crash(self, how: str) -> None:
        """A process of the executor died."""

    def reject(self, entry: Entry, reject: Reject) -> None:
        """A dead letter is in hand."""

    def accepted(self, entry: Entry) -> None:
        """A reject that an operator had accepted beforehand."""

    def defer(self, entry: Entry, defer: Defer) -> None:
        """A record must wait."""

    def committed(self, entries: Sequence[Entry], took_s: float) -> None:
        """These are visible now."""

    def commit_failed(self, aborts: int, unknown: int) -> None:
        """Totals since the start."""
