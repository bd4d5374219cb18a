"""`mediasieve console`: accounts and gold items of the review console."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from pipeline.settings import SettingsInvalid
from pipeline.streaming.clock import SystemClock
from schemas.review import Label
from workers.cli.actor import ACTOR_FORM, check_actor
from workers.cli.common import Json, print_json, settings_for
from workers.cli.console_gold import list_gold, report
from workers.web.principal import Role

if TYPE_CHECKING:
    from workers.console.web.accounts import Accounts

app = typer.Typer(help="The review console.", no_args_is_help=True)
gold_app = typer.Typer(
    help="Gold items: cases of certain label, given to reviewers among the others to measure them.",
    no_args_is_help=True,
)
user_app = typer.Typer(help="Local accounts of the console, in the database of the settings.", no_args_is_help=True)
app.add_typer(user_app, name="user")
app.add_typer(gold_app, name="gold")
gold_app.command("list")(list_gold)
gold_app.command()(report)

Name = Annotated[str, typer.Argument(help="The name to log in with, which verdicts will carry.")]
Tenants = Annotated[list[str] | None, typer.Option(help="A tenant; may be given several times.")]
AllTenants = Annotated[bool, typer.Option("--all-tenants", help="Instead of --tenant.")]
Roles = Annotated[
    list[Role] | None, typer.Option(help="read, review or admin; may be given several times; default: review.")
]
Stdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password's line from standard input instead of asking.")
]


@app.callback()
def console() -> None:
    """The review console; `mediasieve worker console` runs it."""


@user_app.command()
def add(
    name: Name,
    *,
    tenant: Tenants = None,
    all_tenants: AllTenants = False,
    role: Roles = None,
    password_stdin: Stdin = False,
) -> None:
    """Make an account. The password has 12 characters or more and is kept as a scrypt hash.

    Example: mediasieve console user add ana --tenant acme --role review
    """
    tenants = _tenants(tenant, all_tenants)
    with _accounts() as accounts:
        accounts.add(name, _password(password_stdin), tenants, role or [Role.REVIEW])
    print(f"account {name} was made")


@user_app.command("list")
def list_users(json: Json = False) -> None:
    """Every account with what it may do.

    Example: mediasieve console user list
    """
    with _accounts() as accounts:
        found = accounts.all()
    if json:
        for one in found:
            only = None if one.tenants is None else sorted(one.tenants)
            print_json({"name": one.name, "tenants": only, "roles": sorted(one.roles), "disabled": one.is_disabled})
        return
    table = Table("name", "tenants", "roles", "state")
    for one in found:
        tenants = "all" if one.tenants is None else ", ".join(sorted(one.tenants))
        table.add_row(one.name, tenants, ", ".join(sorted(one.roles)), "disabled" if one.is_disabled else "good")
    Console().print(table)


@user_app.command()
def password(name: Name, *, password_stdin: Stdin = False) -> None:
    """Give an account another password; its sessions end.

    Example: mediasieve console user password ana
    """
    with _accounts() as accounts:
        accounts.set_password(name, _password(password_stdin))
    print(f"account {name} has another password; its sessions have ended")


@user_app.command()
def access(name: Name, *, tenant: Tenants = None, all_tenants: AllTenants = False, role: Roles = None) -> None:
    """Give an account other tenants and roles instead of those it has; its sessions end.

    Example: mediasieve console user access ana --tenant acme --tenant zeta --role review
    """
    with _accounts() as accounts:
        accounts.set_access(name, _tenants(tenant, all_tenants), role or [Role.REVIEW])
    print(f"account {name} has other tenants and roles; its sessions have ended")


@user_app.command()
def disable(name: Name) -> None:
    """Let nobody in by this account from now on; its sessions end. What it decided stays.

    Example: mediasieve console user disable ana
    """
    with _accounts() as accounts:
        accounts.disable(name)
    print(f"account {name} is disabled")


@user_app.command()
def enable(name: Name) -> None:
    """Take `disable` back.

    Example: mediasieve console user enable ana
    """
    with _accounts() as accounts:
        accounts.enable(name)
    print(f"account {name} is good again")


@gold_app.command("add")
def add_gold(
    decision: Annotated[UUID, typer.Argument(help="The uid of a closed case's, a pass's or a block's decision.")],
    *,
    label: Annotated[Label, typer.Option(help="What it certainly is.")],
    actor: Annotated[str, typer.Option(help=f"Who says so. {ACTOR_FORM}", callback=check_actor)],
) -> None:
    """Let reviewers be measured with this case. Their answers to it are counted, and are never decisions.

    Of a reviewer's claims `console.review.gold_share` are gold items, each given once. Adding one again changes its
    label. Exit code 2: there is no such decision in the console's database, or its case is open.

    Example: mediasieve console gold add 60390219-d96b-5ace-9119-e28ed6212a62 --label photograph --actor jane.doe
    """
    try:
        from workers.console.domain.errors import ReviewError  # noqa: PLC0415 - its packages come with [web]
        from workers.console.domain.service import ReviewService  # noqa: PLC0415 - as above
        from workers.web.database import open_database  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise SettingsInvalid(f"{error.name} is not installed; pip install 'mediasieve[web]'") from error
    settings = settings_for(None)
    engine = open_database(settings.database)
    try:
        ReviewService(engine, SystemClock(), settings.console.review).add_gold(decision, label, actor)
    except ReviewError as error:
        raise typer.BadParameter(str(error)) from error
    finally:
        engine.dispose()
    print(f"{decision} is a gold item: {label.value}")


@contextmanager
def _accounts() -> Iterator[Accounts]:
    try:
        from workers.console.web.accounts import (  # noqa: PLC0415 - its packages come with [web]
            AccountRefused,
            Accounts,
        )
        from workers.console.web.passwords import PasswordRefused  # noqa: PLC0415 - as above
        from workers.console.web.tables import create_tables  # noqa: PLC0415 - as above
        from workers.web.database import open_database  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise SettingsInvalid(f"{error.name} is not installed; pip install 'mediasieve[web]'") from error
    engine = open_database(settings_for(None).database)
    try:
        create_tables(engine)
        yield Accounts(engine, SystemClock())
    except (AccountRefused, PasswordRefused) as error:
        raise typer.BadParameter(str(error)) from error
    finally:
        engine.dispose()


def _tenants(named: list[str] | None, all_tenants: bool) -> list[str] | None:
    """None: all of them."""
    if bool(named) == all_tenants:
        raise typer.BadParameter("give --tenant, once or more, or --all-tenants")
    return None if all_tenants else named


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
