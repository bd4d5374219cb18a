"""How long something that no archived decision names may still be needed."""

from __future__ import annotations

from datetime import timedelta

from schemas.topics import DECISION_TOPICS, TOPICS, Topic


def longest_flight() -> timedelta:
    """From the put of an object to the moment when no record that is still readable can name it.

    Kept bytes wait on `media.suspect`, then on `media.anomalous`, then in a decision that is not archived yet: each
    as long as its topic keeps records.
    """
    kept_ms = {spec.topic: spec.retention_ms for spec in TOPICS}
    suspect = max(kept_ms[Topic.SUSPECT], kept_ms[Topic.SUSPECT_PRIORITY])
    anomalous = max(kept_ms[Topic.ANOMALOUS], kept_ms[Topic.ANOMALOUS_PRIORITY])
    return timedelta(milliseconds=suspect + anomalous + max(kept_ms[t] for t in DECISION_TOPICS.values()))
