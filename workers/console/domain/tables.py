"""The queue's tables, in SQL that SQLite and Postgres both speak. Times are seconds since the epoch."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from workers.web.database import create_missing

metadata = MetaData()

_COUNTER = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only what it calls INTEGER

cases = Table(
    "review_cases",
    metadata,
    Column("case_id", String(36), primary_key=True),
    Column("decision_uid", String(36), nullable=False, index=True),
    Column("tenant", String(128), nullable=False),
    Column("media_id", String(128), nullable=False),
    Column("source", String(128)),
    Column("uri", Text, nullable=False),
    Column("content_sha256", String(64), index=True),
    Column("state", String(8), nullable=False),
    Column("outcome", String(8), nullable=False),
    Column("machine_outcome", String(8), nullable=False),
    Column("risk", String(16)),
    Column("stage_exited", String(16), nullable=False),
    Column("score", Double),
    Column("score_bin", Integer),
    Column("classifier_score", Double),
    Column("spectral_score", Double),
    Column("mllm_score", Double),
    Column("reason", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("words", Text, nullable=False),
    Column("decided_at", Double, nullable=False, index=True),
    Column("decided_hour", BigInteger, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("urgency", Double, nullable=False),
    Column("rank", Double, nullable=False),
    Column("round", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("votes", Integer, nullable=False),
    Column("skips", Integer, nullable=False),
    Column("appealed", Boolean, nullable=False),
    Column("lease_token", String(64), unique=True),
    Column("lease_reviewer", String(128), index=True),
    Column("lease_until", Double),
    Column("label", String(16)),
    Column("closed_at", Double),
    Column("gold_of", String(36)),
    Column("gold_for", String(128)),
    Column("traceparent", String(64), nullable=False),
    Column("decision", LargeBinary, nullable=False),
    Index("review_cases_next", "state", "rank"),
    Index("review_cases_closed", "state", "closed_at"),
)
"""One row a decision, and one for each gold item that a reviewer was given: `gold_of` is then the gold's decision,
`gold_for` the reviewer.

`rank` orders the queue, smallest first; see priority.py. `sequence` is that of the finding's last event.
"""

verdicts = Table(
    "review_verdicts",
    metadata,
    Column("review_id", String(36), primary_key=True),
    Column("case_id", String(36), nullable=False),
    Column("round", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("reviewer", String(128), nullable=False, index=True),
    Column("label", String(16), nullable=False),
    Column("family", String(128)),
    Column("rationale", Text, nullable=False),
    Column("reviewed_at", Double, nullable=False, index=True),
    Column("token", String(64), nullable=False, unique=True),
    Column("agreed", Integer),
    Column("gold_correct", Integer),
    UniqueConstraint("case_id", "round", "reviewer"),
)
"""Answers; `sequence` is that of the Update. `agreed`: 1 on the machine's side, else 0; none where one has no side."""

actions = Table(
    "review_actions",
    metadata,
    Column("action_id", _COUNTER, primary_key=True, autoincrement=True),
    Column("case_id", String(36), nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("at", Double, nullable=False),
    Column("detail", Text, nullable=False),
    Column("label", String(16)),
)
"""Everything that was done, in order."""

recusals = Table(
    "review_recusals",
    metadata,
    Column("case_id", String(36), primary_key=True),
    Column("reviewer", String(128), primary_key=True),
    Column("until", Double),
)
"""Cases that a reviewer is not offered: for a while after a skip; for ever (none) after an answer or an appeal."""

gold = Table(
    "review_gold",
    metadata,
    Column("decision_uid", String(36), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("label", String(16), nullable=False),
    Column("added_by", String(128), nullable=False),
    Column("added_at", Double, nullable=False),
)
"""Cases whose label is certain."""

outbox = Table(
    "review_outbox",
    metadata,
    Column("entry_id", _COUNTER, primary_key=True, autoincrement=True),
    Column("event_id", String(36), nullable=False, unique=True),
    Column("topic", String(64), nullable=False),
    Column("key", String(260), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("written_at", Double, nullable=False),
    Column("published_at", Double, index=True),
)
"""What is to go to Kafka: topic by its logical name, headers as JSON."""

publishers = Table(
    "review_publishers",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", Double, nullable=False),
)
"""Which process publishes now."""


def open_tables(engine: Engine) -> None:
    """Make what is missing."""
    create_missing(engine, metadata)
