"""API keys, tokens of an OpenID provider, and the database's settings."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from pipeline.settings import SettingsInvalid
from workers.cli.apikeys import app
from workers.web.api_keys import ApiKeys, KeyFileInvalid, UnknownKey
from workers.web.authentication import Authenticator
from workers.web.database import DatabaseSettings, open_database, reading
from workers.web.oidc import OidcTokens, ProviderUnavailable
from workers.web.principal import Principal, Role
from workers.web.problems import ProblemError
from workers.web.settings import AccessSettings, OidcSettings

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ACME = frozenset({"acme"})
BOTH = frozenset({Role.SUBMIT, Role.READ})


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    return ApiKeys(tmp_path / "below" / "keys.json")


def test_a_key_is_known_by_its_digest_alone(keys: ApiKeys) -> None:
    entry, key = keys.create(tenants=ACME, roles=BOTH, now=NOW)
    principal = keys.principal(key, NOW)
    assert principal is not None
    assert (principal.name, principal.tenants, principal.roles) == (f"key:{entry.id}", ACME, BOTH)
    assert key not in keys.path.read_text()
    assert key.rpartition("_")[2] not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o077 == 0


def test_a_changed_key_is_no_key(keys: ApiKeys) -> None:
    _, key = keys.create(tenants=ACME, roles=BOTH, now=NOW)
    for wrong in (key[:-1], key + "A", key.swapcase(), "msk_" + "0" * 12 + key[16:], "", "msk_"):
        assert keys.principal(wrong, NOW) is None


def test_expired_and_revoked_keys(keys: ApiKeys) -> None:
    _, short = keys.create(tenants=ACME, roles=BOTH, now=NOW, expires_at=NOW + timedelta(days=1))
    entry, long = keys.create(tenants=None, roles=BOTH, now=NOW)
    other = ApiKeys(keys.path)
    assert other.principal(short, NOW) is not None
    assert other.principal(short, NOW + timedelta(days=1)) is None
    assert other.principal(long, NOW) is not None
    keys.revoke(entry.id, NOW)
    assert other.principal(long, NOW) is None, "a process that has read the file sees the change"
    with pytest.raises(UnknownKey, match="apikeys list"):
        keys.revoke("000000000000", NOW)


def test_two_writers_lose_nothing(keys: ApiKeys) -> None:
    one, two = ApiKeys(keys.path), ApiKeys(keys.path)
    for writer in (one, two, one, two):
        writer.create(tenants=ACME, roles=BOTH, now=NOW)
    assert len(keys.all()) == 4


def test_a_change_leaves_the_file_to_who_may_read_it(keys: ApiKeys) -> None:
    """The gateway runs as another user than whoever revokes a key."""
    entry, _ = keys.create(tenants=ACME, roles=BOTH, now=NOW)
    keys.path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(keys.path, 12_345, 54_321)
    before = keys.path.stat()
    keys.revoke(entry.id, NOW)
    after = keys.path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_a_broken_file_lets_nobody_in(keys: ApiKeys) -> None:
    _, key = keys.create(tenants=ACME, roles=BOTH, now=NOW)
    access = Authenticator(AccessSettings(api_keys=keys.path))
    keys.path.write_text('{"keys": [{"id": "x"}]}')
    with pytest.raises(KeyFileInvalid, match=r"keys\.0\.id"):
        keys.principal(key, NOW)
    with pytest.raises(ProblemError) as caught:
        access.authenticate(f"Bearer {key}")
    assert caught.value.problem.status == 503


def test_somebody_must_be_able_to_come_in(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="MEDIASIEVE_ACCESS__API_KEYS"):
        Authenticator(AccessSettings())
    with pytest.raises(SettingsInvalid, match="apikeys create"):
        Authenticator(AccessSettings(api_keys=tmp_path / "none.json"))


def test_admin_may_do_everything_for_its_tenants_only() -> None:
    admin = Principal("key:x", ACME, frozenset({Role.ADMIN}))
    assert all(admin.may(role) for role in Role)
    assert not admin.may_see("rival")
    reader = Principal("key:y", None, frozenset({Role.READ}))
    assert [role for role in Role if reader.may(role)] == [Role.READ]
    assert reader.may_see("anybody")


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_command_line_makes_lists_and_revokes(tmp_path: Path) -> None:
    file = ("--file", str(tmp_path / "keys.json"))
    limits = ("--per-second", "2.5", "--source", "upload-service", "--content-type", "image/png", "--scheme", "s3")
    code, said = run("create", *file, "--tenant", "acme", "--tenant", "rival", "--days", "1", *limits, "--json")
    assert code == 0
    made = json.loads(said)
    principal = ApiKeys(tmp_path / "keys.json").principal(made["key"], datetime.now(UTC))
    assert principal is not None
    assert principal.roles == BOTH
    _, said = run("list", *file, "--json")
    row = json.loads(said)
    assert (row["state"], row["tenants"]) == ("good", ["acme", "rival"])
    assert row["limits"] == {
        "per_second": 2.5,
        "sources": ["upload-service"],
        "content_types": ["image/png"],
        "schemes": ["s3"],
    }
    assert made["key"] not in run("list", *file)[1]
    run("revoke", made["id"], *file)
    assert json.loads(run("list", *file, "--json")[1])["state"] == "revoked"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--tenant", "a", "--all-tenants"),
        ("--tenant", "no/slash"),
        ("--tenant", "a", "--per-second", "-1"),
        ("--tenant", "a", "--days", "0"),
        ("--tenant", "a", "--scheme", "ftp"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, _ = run("create", "--file", str(tmp_path / "keys.json"), *arguments)
    assert code == 2
    assert not (tmp_path / "keys.json").exists()


SIGNING = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
OIDC = OidcSettings(
    issuer="https://id.example",
    audience="mediasieve",
    jwks_url="https://id.example/keys",
    roles_claim="realm_access.roles",
    roles={"uploader": Role.SUBMIT, "viewer": Role.READ},
    all_tenants="*",
)


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> OidcTokens:
    key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(SIGNING.public_key()))
    jwks = {"keys": [key | {"kid": "k1", "use": "sig", "alg": "ES256"}]}
    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", lambda _: jwks)
    return OidcTokens(OIDC)


def token(signed_by: Any = SIGNING, algorithm: str = "ES256", kid: str = "k1", **changes: Any) -> str:
    claims = {
        "iss": OIDC.issuer,
        "aud": OIDC.audience,
        "sub": "user-1",
        "exp": datetime.now(UTC) + timedelta(hours=1),
        "tenants": ["acme", "no/slash"],
        "realm_access": {"roles": ["uploader", "offline_access"]},
    }
    kept = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(kept, signed_by, algorithm, headers={"kid": kid})


def test_a_token_s_claims_become_tenants_and_roles(tokens: OidcTokens) -> None:
    principal = tokens.principal(token())
    assert principal is not None
    assert (principal.name, principal.tenants, principal.roles) == ("oidc:user-1", ACME, frozenset({Role.SUBMIT}))
    assert principal.expires_at is not None
    assert tokens.principal(token(tenants="acme")).tenants == ACME  # type: ignore[union-attr]
    assert tokens.principal(token(tenants=["*"])).tenants is None  # type: ignore[union-attr]
    nobody = tokens.principal(token(tenants=None, realm_access=None))
    assert nobody is not None
    assert (nobody.tenants, nobody.roles) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    "bad",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"exp": datetime(2020, 1, 1, tzinfo=UTC)},
        {"exp": None},
        {"sub": None},
        {"sub": "x" * 256},
        {"sub": "a\x00b"},
        {"exp": 10**15},
        {"nbf": datetime(2100, 1, 1, tzinfo=UTC)},
        {"signed_by": OTHER},
        {"kid": "k2"},
        {"signed_by": "a shared secret of more than thirty-two bytes", "algorithm": "HS256"},
        {"signed_by": "", "algorithm": "none"},
    ],
)
def test_a_token_that_is_not_good_is_nobody(tokens: OidcTokens, bad: dict[str, Any]) -> None:
    assert tokens.principal(token(**bad)) is None


@pytest.mark.parametrize("text_", ["", "a.b.c", "x" * 20_000, "msk"])
def test_what_is_no_token_is_nobody(tokens: OidcTokens, text_: str) -> None:
    assert tokens.principal(text_) is None


def test_without_the_provider_s_keys_nobody_can_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: object) -> None:
        raise jwt.PyJWKClientConnectionError("refused")

    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", away)
    with pytest.raises(ProviderUnavailable):
        OidcTokens(OIDC).principal(token())
    with pytest.raises(ProblemError) as caught:
        Authenticator(AccessSettings(oidc=OIDC)).authenticate(f"Bearer {token()}")
    assert (caught.value.problem.status, caught.value.headers["Retry-After"]) == (503, "5")


def test_a_provider_that_failed_is_not_asked_by_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would wait its time-out, in a thread that other requests need."""
    asked: list[object] = []

    def page(*_: object) -> None:
        asked.append(None)
        json.loads("<html>")

    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", page)
    tokens = OidcTokens(OIDC)
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            tokens.principal(token())
    assert len(asked) == 1
    monkeypatch.setattr("workers.web.oidc.time", SimpleNamespace(monotonic=lambda: float("inf")))
    with pytest.raises(ProviderUnavailable):
        tokens.principal(token())
    assert len(asked) == 2


def test_a_shared_secret_cannot_be_configured() -> None:
    with pytest.raises(ValueError, match="algorithms"):
        OidcSettings(issuer="i", audience="a", jwks_url="https://k", algorithms=("HS256",))  # type: ignore[arg-type]


def test_sqlite_is_durable_and_its_writers_wait_at_the_start(tmp_path: Path) -> None:
    engine = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/a/b.sqlite", busy_timeout_s=0.05))
    with engine.begin() as connection:
        pragmas = [connection.execute(text(f"PRAGMA {p}")).scalar_one() for p in ("journal_mode", "synchronous")]
        assert pragmas == ["wal", 2]
        connection.execute(text("CREATE TABLE t (x)"))
    with engine.begin() as writer:
        writer.execute(text("INSERT INTO t VALUES (1)"))
        with reading(engine) as reader:
            assert reader.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
        with pytest.raises(OperationalError, match="locked"), engine.begin():
            pass
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///relative.db", "mysql://x", "oracle", "postgresql://u:p@h/d"])
def test_a_database_that_is_not_supported(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with"):
        DatabaseSettings(url=url)


def test_the_database_s_password_is_not_shown() -> None:
    settings = DatabaseSettings(url="postgresql+psycopg://u:hunter2@h/d")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
