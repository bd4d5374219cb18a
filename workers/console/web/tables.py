"""The page's own tables. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

from workers.web.database import create_missing

METADATA = MetaData()

ACCOUNTS = Table(
    "console_accounts",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("password", String(256), nullable=False),
    Column("tenants", JSON, nullable=True, comment="null: all tenants"),
    Column("roles", JSON, nullable=False),
    Column("is_disabled", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
)

SESSIONS = Table(
    "console_sessions",
    METADATA,
    Column("token_sha256", String(64), primary_key=True, comment="the token itself is in the browser alone"),
    Column("account", String(128), ForeignKey("console_accounts.name", ondelete="CASCADE"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Index("console_sessions_account", "account"),
)

HELD = Table(
    "console_session_claims",
    METADATA,
    Column("session", String(64), ForeignKey("console_sessions.token_sha256", ondelete="CASCADE"), primary_key=True),
    Column("case_id", String(64), primary_key=True),
    Column("token", String(128), nullable=False),
)

FAILURES = Table(
    "console_login_failures",
    METADATA,
    Column("who", String(160), primary_key=True, comment="account:NAME or address:IP"),
    Column("count", Integer, nullable=False),
    Column("last_at", Float, nullable=False),
)


FINGERPRINTS = Table(
    "console_fingerprints",
    METADATA,
    Column("tenant", String(128), primary_key=True),
    Column("content_sha256", String(64), primary_key=True),
    Column("dhash", LargeBinary, nullable=True, comment="256 bits; null: tried, and nothing to compare"),
)


def create_tables(engine: Engine) -> None:
    """What is missing of them."""
    create_missing(engine, METADATA)
