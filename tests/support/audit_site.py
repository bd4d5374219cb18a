"""A log in a directory with its keys, and `mediasieve audit` on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID, uuid5

import pytest
from typer.testing import CliRunner

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import gap_leaf, leaf_of
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import open_log_storage
from pipeline.settings import PREFIX, load_settings
from schemas.topics import Topic
from tests.support.audit import finding
from tests.support.fleet import clean_environment
from workers.cli.audit import app
from workers.settings import Settings

NAME = "tests.example/audit"
LEAVES = 300


def uid_of(number: int) -> UUID:
    return uuid5(UUID(int=0), f"media-{number}")


class Site:
    """A log with one tree of decisions and one of reviews, and its keys."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "store" / "audit" / NAME
        self.environment = {
            "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
            "MEDIASIEVE_AUDIT__LOG_NAME": NAME,
            "MEDIASIEVE_AUDIT__PRIVATE_KEY": str(home / "keys" / "audit-private.pem"),
            "MEDIASIEVE_AUDIT__PUBLIC_KEYS": str(home / "keys" / "audit-public-keys.json"),
        }
        assert self.run("keygen", str(home / "keys"))[0] == 0
        self.public = Path(self.environment["MEDIASIEVE_AUDIT__PUBLIC_KEYS"])
        self.append(0, LEAVES)
        writer = self.writer(f"{Topic.REVIEWS}/2")
        writer.append(
            [leaf_of(Topic.REVIEWS, 2, 7, b"not a review").encode(), gap_leaf(Topic.REVIEWS, 2, 8, 11).encode()]
        )

    def writer(self, tree: str) -> AuditLog:
        signer = Signer.load(NAME, Path(self.environment["MEDIASIEVE_AUDIT__PRIVATE_KEY"]))
        keys = KeySet.load(Path(self.environment["MEDIASIEVE_AUDIT__PUBLIC_KEYS"]))
        return AuditLog.open(open_log_storage(self.log.as_uri()).under(tree), f"{NAME}/{tree}", signer, keys)

    def append(self, start: int, stop: int) -> None:
        values = [(n, finding(f"media-{n}", uid_of(n))) for n in range(start, stop)]
        self.writer(f"{Topic.PASS}/0").append([leaf_of(Topic.PASS, 0, 2 * n, value).encode() for n, value in values])

    @property
    def settings(self) -> Settings:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(PREFIX)]:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return load_settings(Settings)

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        given = self.environment if environment is None else environment
        done = CliRunner().invoke(app, list(arguments), env=clean_environment(given))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    def rows(self, *arguments: str) -> list[dict[str, object]]:
        code, said = self.run(*arguments, "--json")
        assert code == 0, said
        return [json.loads(line) for line in said.splitlines()]
