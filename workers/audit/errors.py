"""Why an audit worker stops, apart from what the log itself says."""

from __future__ import annotations


class AuditGap(Exception):
    """Kafka's retention has removed records that are not in the log; the text says which and what to do."""


class AuditContradiction(Exception):
    """Kafka and the log tell different stories: one of them was rolled back, emptied or made anew."""


class KeptInvalid(Exception):
    """What was given as kept checkpoints is none of this log; names the file."""
