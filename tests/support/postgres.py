"""A PostgreSQL database for one test, on the server that an environment variable names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

VARIABLE = "TEST_POSTGRES_URL"
"""Such as postgresql+psycopg://USER:PASSWORD@HOST/postgres, of a user who may make databases."""


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of an empty database, dropped afterwards; the test is skipped where no server is named."""
    server = os.environ.get(VARIABLE)
    if server is None:
        pytest.skip(f"{VARIABLE} is not set: no PostgreSQL server to test on")
    name = f"mediasieve_test_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()
