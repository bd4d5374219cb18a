"""The people's side of a demo: gateway, console and adaptation worker, with keys and an account made for this run."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
from pydantic import SecretStr

from pipeline.streaming.clock import SystemClock
from workers.adaptation.keys import make_keys
from workers.console.web.accounts import Accounts
from workers.console.web.tables import create_tables
from workers.fleet import Fleet, FleetFailed
from workers.names import WorkerName
from workers.web.api_keys import ApiKeys
from workers.web.database import DatabaseSettings, open_database
from workers.web.principal import Role

PEOPLE = (WorkerName.GATEWAY, WorkerName.CONSOLE, WorkerName.ADAPTATION)
TENANT = "default"
"""That of references which name none, as the demo's do."""

ACCOUNT = "demo"
_KEY_NAME = "demo/references"
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Doors:
    """Base URLs."""

    gateway: str
    console: str


@dataclass(frozen=True, slots=True)
class PeopleSide:
    """Settings of the three workers, and what a person needs to use both doors: secrets made to be printed."""

    environment: dict[str, str]
    api_key: str
    account: str
    password: str

    @classmethod
    def prepare(cls, home: Path) -> PeopleSide:
        """Make keys, an API key and a reviewer's account below `home`.

        A demo has one person: no label needs a second reviewer, and a reference that the gate of the learning loop lets
        through decides at once.

        Raises:
            KeyFileInvalid, AccountRefused: `home` has been prepared before, or cannot be written.
        """
        private, public = make_keys(home / "keys" / "references", _KEY_NAME)
        api_keys, database = home / "keys" / "api-keys.json", f"sqlite:///{home.resolve() / 'people.sqlite'}"
        environment = {
            "MEDIASIEVE_ACCESS__API_KEYS": str(api_keys),
            "MEDIASIEVE_DATABASE__URL": database,
            "MEDIASIEVE_REFERENCES__PRIVATE_KEY": str(private),
            "MEDIASIEVE_REFERENCES__PUBLIC_KEYS": str(public),
            "MEDIASIEVE_REFERENCES__KEY_NAME": _KEY_NAME,
            "MEDIASIEVE_REFERENCES__PROMOTION": "active",
            "MEDIASIEVE_CONSOLE__REVIEW__FOUR_EYES_LABELS": "[]",
        }
        _, api_key = ApiKeys(api_keys).create(
            tenants=frozenset({TENANT}), roles=frozenset({Role.SUBMIT, Role.READ}), now=datetime.now(UTC), note="demo"
        )
        password = secrets.token_urlsafe(12)
        _hire(database, password)
        return cls(environment, api_key, ACCOUNT, password)

    def doors(self, fleet: Fleet, timeout_s: float = 60.0) -> Doors:
        """Where gateway and console of a running fleet listen, from their logs: they take free ports.

        Raises:
            FleetFailed: a worker ended, or does not listen in time.
        """
        return Doors(
            _address(fleet, WorkerName.GATEWAY, "gateway_listening", timeout_s),
            _address(fleet, WorkerName.CONSOLE, "console_listening", timeout_s),
        )

    def welcome(self, fleet: Fleet) -> tuple[str, ...]:
        """Lines that tell a person how to get in. Raises FleetFailed as `doors` does."""
        found = self.doors(fleet)
        return (
            f"review console: {found.console}  account {self.account}, password {self.password}",
            "  one answer closes a case here; by default two people must agree on `generated`",
            f"ingest gateway: {found.gateway}/v1/media, described at {found.gateway}/openapi.json",
            f"  curl -F file=@photo.jpg -H 'Authorization: Bearer {self.api_key}' {found.gateway}/v1/media",
        )


def _hire(database: str, password: str) -> None:
    engine = open_database(DatabaseSettings(url=SecretStr(database)))
    try:
        create_tables(engine)
        Accounts(engine, SystemClock()).add(ACCOUNT, password, [TENANT], [Role.REVIEW])
    finally:
        engine.dispose()


def _address(fleet: Fleet, name: WorkerName, event: str, timeout_s: float) -> str:
    (log_path,) = [member.log_path for member in fleet.members if member.stage == name]
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        fleet.check()
        for line in log_path.read_bytes().splitlines(keepends=True):
            if event.encode() in line and line.endswith(b"\n"):
                told = orjson.loads(line)
                return f"http://{told['host']}:{told['port']}"
        time.sleep(_POLL_S)
    raise FleetFailed(f"{name} does not listen after {timeout_s:.0f} s; see {log_path}")
