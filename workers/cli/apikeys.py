"""`mediasieve apikeys`: who may use the gateway and the console by key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from pipeline.settings import SettingsInvalid
from schemas.wire import describe
from workers.cli.common import Json, print_json, settings_for
from workers.web.api_keys import ApiKey, ApiKeys
from workers.web.principal import Limits, Role, UriScheme

app = typer.Typer(help="API keys of the gateway and the console; the file holds digests alone.", no_args_is_help=True)

File = Annotated[Path | None, typer.Option("--file", help="The file; otherwise MEDIASIEVE_ACCESS__API_KEYS.")]


@app.callback()
def apikeys() -> None:
    """API keys of the gateway and the console."""


@app.command()
def create(  # noqa: PLR0917 - typer names them
    tenant: Annotated[list[str] | None, typer.Option(help="A tenant of its own; may be given several times.")] = None,
    role: Annotated[
        list[Role] | None, typer.Option(help="May be given several times; default: submit and read.")
    ] = None,
    file: File = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Instead of --tenant.")] = False,
    note: Annotated[str, typer.Option(help="What the key is for.")] = "",
    days: Annotated[
        float | None, typer.Option(help="How long it is good; otherwise until it is revoked.", min=0.001)
    ] = None,
    per_second: Annotated[float | None, typer.Option(help="Items a second, on average.")] = None,
    burst: Annotated[int | None, typer.Option(help="Items at once.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Largest file.")] = None,
    content_type: Annotated[list[str] | None, typer.Option(help="Types of files; may be given several times.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Names of producers it may use; may be given several times.")
    ] = None,
    scheme: Annotated[
        list[UriScheme] | None,
        typer.Option(help="URIs it may name, such as s3, in place of gateway.schemes; several times."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a key and print it. It is shown now and never again: the file keeps its SHA-256.

    Example: mediasieve apikeys create --file var/keys.json --tenant acme --note "upload service"
    """
    if bool(tenant) == all_tenants:
        raise typer.BadParameter("give --tenant, once or more, or --all-tenants")
    now = datetime.now(UTC)
    try:
        limits = Limits(
            per_second=per_second,
            burst=burst,
            max_bytes=max_bytes,
            content_types=frozenset(content_type) if content_type else None,
            sources=frozenset(source) if source else None,
            schemes=frozenset(scheme) if scheme else None,
        )
        entry, key = ApiKeys(_path(file)).create(
            tenants=None if all_tenants else frozenset(tenant or ()),
            roles=frozenset(role or (Role.SUBMIT, Role.READ)),
            now=now,
            limits=limits,
            note=note,
            expires_at=now + timedelta(days=days) if days is not None else None,
        )
    except ValidationError as error:
        raise typer.BadParameter(describe(error)) from error
    if json:
        print_json({"id": entry.id, "key": key})
        return
    Console(stderr=True).print(f"key {entry.id}, shown this once:")
    print(key)


@app.command("list")
def list_keys(file: File = None, json: Json = False) -> None:
    """Every key with what it may do, revoked and expired ones too.

    Example: mediasieve apikeys list --file var/keys.json
    """
    now = datetime.now(UTC)
    entries = [_row(entry, now) for entry in ApiKeys(_path(file)).all()]
    if json:
        for row in entries:
            print_json(row)
        return
    table = Table("id", "state", "tenants", "roles", "limits", "note")
    for row in entries:
        limits = ", ".join(f"{name}={value}" for name, value in row["limits"].items())
        tenants = "all" if row["tenants"] is None else ", ".join(row["tenants"])
        table.add_row(row["id"], row["state"], tenants, ", ".join(row["roles"]), limits, row["note"])
    Console().print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `list` shows it.")], file: File = None, json: Json = False
) -> None:
    """Refuse a key from the next request on; open streams end within half a minute.

    Example: mediasieve apikeys revoke 0123456789ab --file var/keys.json
    """
    entry = ApiKeys(_path(file)).revoke(key_id, datetime.now(UTC))
    if json:
        print_json({"id": entry.id, "revoked_at": entry.revoked_at})
    else:
        print(f"key {entry.id} was revoked at {entry.revoked_at:%Y-%m-%d %H:%M:%S} UTC")


def _path(file: Path | None) -> Path:
    path = file or settings_for(None).access.api_keys
    if path is None:
        raise SettingsInvalid("MEDIASIEVE_ACCESS__API_KEYS (in the file: access.api_keys): name a file, or give --file")
    return path


def _row(entry: ApiKey, now: datetime) -> dict[str, Any]:
    state = "revoked" if entry.revoked_at is not None else "expired" if entry.ended(now) else "good"
    return {
        "id": entry.id,
        "state": state,
        "tenants": None if entry.tenants is None else sorted(entry.tenants),
        "roles": sorted(entry.roles),
        "limits": entry.limits.model_dump(mode="json", exclude_none=True),
        "note": entry.note,
        "created_at": entry.created_at,
        "expires_at": entry.expires_at,
    }
