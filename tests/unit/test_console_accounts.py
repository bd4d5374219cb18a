"""Accounts, sessions and the brake on guessing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select

from tests.support.consoles import WallClock
from workers.console.web.accounts import AccountRefused, Accounts
from workers.console.web.login_limit import LoginLimit
from workers.console.web.passwords import PasswordRefused, hash_password, verify_password
from workers.console.web.sessions import Sessions, csrf_of
from workers.console.web.tables import ACCOUNTS, SESSIONS, create_tables
from workers.web.database import DatabaseSettings, open_database
from workers.web.principal import Role

PASSWORD = "correct horse battery"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(DatabaseSettings(url=SecretStr(f"sqlite:///{tmp_path}/console.sqlite")))
    create_tables(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def accounts(engine: Engine, clock: WallClock) -> Accounts:
    made = Accounts(engine, clock)
    made.add("ana", PASSWORD, ["acme"], [Role.REVIEW])
    return made


def test_a_password_is_kept_as_a_salted_hash_alone() -> None:
    first, second = hash_password(PASSWORD), hash_password(PASSWORD)
    assert PASSWORD not in first
    assert first != second
    assert verify_password(PASSWORD, first)
    assert not verify_password(PASSWORD + "!", first)


def test_the_same_letters_in_another_form_are_the_same_password() -> None:
    assert verify_password("cafe\u0301 au lait noir", hash_password("caf\u00e9 au lait noir"))


@pytest.mark.parametrize("password", ["short", "x" * 257])
def test_passwords_out_of_bounds_are_refused(password: str) -> None:
    with pytest.raises(PasswordRefused, match="12 to 256"):
        hash_password(password)


def test_a_hash_of_an_unknown_scheme_is_said_to_be_one() -> None:
    with pytest.raises(ValueError, match="unknown scheme 'md5'"):
        verify_password(PASSWORD, "md5$1$1$1$AA==$AA==")


def test_an_account_logs_in_with_its_password_alone(accounts: Accounts) -> None:
    found = accounts.check("ana", PASSWORD)
    assert found is not None
    assert (found.name, found.tenants, found.roles) == ("ana", frozenset({"acme"}), frozenset({Role.REVIEW}))
    assert accounts.check("ana", "wrong password") is None
    assert accounts.check("bob", PASSWORD) is None


def test_nothing_in_the_table_is_the_password(accounts: Accounts, engine: Engine) -> None:
    with engine.connect() as connection:
        row = connection.execute(select(ACCOUNTS)).one()
    assert PASSWORD not in str(row)


@pytest.mark.parametrize(
    ("name", "tenants", "roles", "words"),
    [
        ("ana", ["acme"], [Role.READ], "exists"),
        ("key:1", ["acme"], [Role.READ], "name 'key:1'"),
        ("<script>", ["acme"], [Role.READ], "name"),
        ("eve", ["a b"], [Role.READ], "tenant 'a b'"),
        ("eve", ["acme"], [], "at least one role"),
        ("eve", [], [Role.READ], "a tenant or all"),
        ("eve", ["acme"], [Role.SUBMIT], "no page is for the role submit"),
    ],
)
def test_accounts_that_cannot_be_are_refused(
    accounts: Accounts, name: str, tenants: list[str], roles: list[Role], words: str
) -> None:
    with pytest.raises(AccountRefused, match=words):
        accounts.add(name, PASSWORD, tenants, roles)


def test_disabling_and_a_new_password_end_all_sessions(accounts: Accounts, engine: Engine, clock: WallClock) -> None:
    sessions = Sessions(engine, 100.0, 10.0, clock)
    token = sessions.begin("ana")
    accounts.disable("ana")
    assert accounts.check("ana", PASSWORD) is None
    assert accounts.principal("ana") is None
    assert sessions.find(token) is None
    accounts.enable("ana")
    token = sessions.begin("ana")
    accounts.set_password("ana", "another long password")
    assert sessions.find(token) is None
    assert accounts.check("ana", PASSWORD) is None
    assert accounts.check("ana", "another long password") is not None
    with pytest.raises(AccountRefused, match="no account 'bob'"):
        accounts.disable("bob")


def test_other_tenants_and_roles_end_all_sessions(accounts: Accounts, engine: Engine, clock: WallClock) -> None:
    sessions = Sessions(engine, 100.0, 10.0, clock)
    token = sessions.begin("ana")
    accounts.set_access("ana", None, [Role.READ])
    found = accounts.check("ana", PASSWORD)
    assert found is not None
    assert (found.tenants, found.roles) == (None, frozenset({Role.READ}))
    assert sessions.find(token) is None
    with pytest.raises(AccountRefused, match="a tenant or all"):
        accounts.set_access("ana", [], [Role.READ])


def test_a_session_ends_by_age_and_by_idleness(accounts: Accounts, engine: Engine, clock: WallClock) -> None:
    sessions = Sessions(engine, lifetime_s=1000.0, idle_s=100.0, clock=clock)
    idle, busy = sessions.begin("ana"), sessions.begin("ana")
    for _ in range(16):
        clock.now += 60.0
        assert sessions.find(busy) is not None
    assert sessions.find(idle) is None
    clock.now += 60.0
    assert sessions.find(busy) is None


def test_the_database_holds_no_token(accounts: Accounts, engine: Engine, clock: WallClock) -> None:
    token = Sessions(engine, 100.0, 100.0, clock).begin("ana")
    with engine.connect() as connection:
        assert token not in str(connection.execute(select(SESSIONS)).one())


def test_a_session_has_a_form_token_of_its_own(accounts: Accounts, engine: Engine, clock: WallClock) -> None:
    sessions = Sessions(engine, 100.0, 100.0, clock)
    first, second = sessions.begin("ana"), sessions.begin("ana")
    found = sessions.find(first)
    assert found is not None
    assert found.csrf == csrf_of(first) != csrf_of(second)
    assert first not in found.csrf


def test_claims_are_remembered_by_the_session_that_made_them(
    accounts: Accounts, engine: Engine, clock: WallClock
) -> None:
    sessions = Sessions(engine, 100.0, 100.0, clock)
    first, second = (sessions.find(sessions.begin("ana")) for _ in range(2))
    assert first is not None
    assert second is not None
    sessions.hold(first, "case-1", "token-1")
    sessions.hold(first, "case-1", "token-2")
    assert sessions.held(first, "case-1") == "token-2"
    assert sessions.held(second, "case-1") is None
    sessions.drop(first, "case-1")
    assert sessions.held(first, "case-1") is None
    sessions.hold(first, "case-1", "token-3")
    sessions.end(first)
    assert sessions.held(first, "case-1") is None


def test_guessing_one_account_gets_slower_and_ends(engine: Engine, clock: WallClock) -> None:
    limit = LoginLimit(engine, clock)
    waits = []
    for at in range(16):
        waits.append(limit.attempt("ana", f"10.0.0.{at}"))
        if waits[-1] > 0.0:
            clock.now += waits[-1]
            assert limit.attempt("ana", f"10.0.1.{at}") == 0.0
    assert waits[:5] == [0.0] * 5
    assert waits[5:9] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == 300.0
    assert limit.attempt("bob", "10.1.0.1") == 0.0


def test_guesses_at_the_same_time_are_all_counted(engine: Engine, clock: WallClock) -> None:
    """Each before its password is checked: those that wait for a free processor have passed the brake together."""
    limit = LoginLimit(engine, clock)
    with ThreadPoolExecutor(8) as threads:
        heard = list(threads.map(lambda _: limit.attempt("ana", "10.0.0.1"), range(40)))
    assert heard.count(0.0) == 5
    assert heard.count(1.0) == 35


def test_guessing_many_accounts_from_one_address_gets_slower(engine: Engine, clock: WallClock) -> None:
    limit = LoginLimit(engine, clock)
    heard = [limit.attempt(f"name-{at}", "10.0.0.1") for at in range(21)]
    assert heard == [0.0] * 20 + [1.0]
    clock.now += 1.0
    assert limit.attempt("ana", "10.0.0.1") == 0.0
    limit.succeeded("ana", "10.0.0.1")
    assert limit.attempt("ben", "10.0.0.1") == 1.0


def test_right_passwords_of_one_office_slow_nobody_down(engine: Engine, clock: WallClock) -> None:
    limit = LoginLimit(engine, clock)
    for at in range(60):
        assert limit.attempt(f"name-{at}", "10.0.0.1") == 0.0
        limit.succeeded(f"name-{at}", "10.0.0.1")


def test_a_right_password_clears_the_account(engine: Engine, clock: WallClock) -> None:
    limit = LoginLimit(engine, clock)
    for _ in range(5):
        assert limit.attempt("ana", "10.0.0.1") == 0.0
    assert limit.attempt("ana", "10.0.0.2") == 1.0
    limit.succeeded("ana", "10.0.0.2")
    assert limit.attempt("ana", "10.0.0.2") == 0.0
