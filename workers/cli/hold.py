"""`mediasieve hold`: legal holds."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError
from rich.console import Console

from pipeline.evidence.assembly import Evidence, open_evidence
from pipeline.evidence.hold_locks import align_object_holds
from pipeline.evidence.legal_hold import Hold
from schemas.wire import describe
from workers.cli.actor import ACTOR_FORM, check_actor
from workers.cli.common import Json, logs_on_stderr, print_json, settings_for

app = typer.Typer(help="Keep evidence from being erased.", no_args_is_help=True, rich_markup_mode=None)
Actor = Annotated[str, typer.Option(help=f"Who does it. {ACTOR_FORM}", callback=check_actor)]
Reason = Annotated[str, typer.Option(help="Why; kept with the hold.")]


@app.command("set")
def set_hold(  # noqa: PLR0917 - typer names them
    tenant: Annotated[str, typer.Option(help="Whose media.")],
    actor: Actor,
    reason: Reason,
    media_id: Annotated[str | None, typer.Option(help="The media item.")] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="All of the tenant, also what is yet to come.")
    ] = False,
    json: Json = False,
) -> None:
    """Hold one media item, or everything of a tenant; prints the hold's id.

    Example: mediasieve hold set --tenant acme --media-id photo-17 --actor counsel --reason "case 12"
    """
    if (media_id is None) != everything:
        raise typer.BadParameter("give either --media-id or --everything")
    with logs_on_stderr():
        evidence = _open()
        try:
            hold = evidence.holds.set(tenant, media_id, actor, reason)
        except ValidationError as error:
            raise typer.BadParameter(describe(error)) from error
        align_object_holds(evidence.archive, evidence.holds, evidence.vault.lock, hold)
    _print(hold, json=json)


@app.command()
def release(
    hold_id: Annotated[UUID, typer.Argument(help="As `set` and `list` print it.")],
    actor: Actor,
    reason: Reason,
    json: Json = False,
) -> None:
    """End one hold; others on the same media stay in force. Safe to run again after it was killed.

    Example: mediasieve hold release 0b7c... --actor counsel --reason "case 12 is closed"
    """
    with logs_on_stderr():
        evidence = _open()
        try:
            hold = evidence.holds.release(hold_id, actor, reason)
        except ValidationError as error:
            raise typer.BadParameter(describe(error)) from error
        align_object_holds(evidence.archive, evidence.holds, evidence.vault.lock, hold)
    _print(hold, json=json)


@app.command("list")
def list_holds(
    everything: Annotated[bool, typer.Option("--all", help="Released ones too.")] = False, json: Json = False
) -> None:
    """Holds in force, oldest first.

    Example: mediasieve hold list --json | jq .hold_id
    """
    found = [hold for hold in _open().holds.every() if everything or hold.released is None]
    for hold in found:
        _print(hold, json=json)
    if not found and not json:
        Console().print("no holds")


def _open() -> Evidence:
    return open_evidence(settings_for(None))


def _print(hold: Hold, *, json: bool) -> None:
    if json:
        print_json(hold.model_dump(mode="json"))
        return
    what = "everything" if hold.media_id is None else hold.media_id
    line = f"{hold.hold_id}  {hold.tenant}  {what}  {hold.set_at:%Y-%m-%d}  {hold.actor}: {hold.reason}"
    if hold.released is not None:
        line += f"  (released {hold.released.released_at:%Y-%m-%d} by {hold.released.actor}: {hold.released.reason})"
    Console(soft_wrap=True, highlight=False).print(line, markup=False)
