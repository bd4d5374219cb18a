"""`mediasieve retention`: erase what is due, and sweep what no decision names."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.evidence.assembly import load_policy, open_evidence
from pipeline.evidence.due import Applied, Unreadable, apply_retention
from pipeline.evidence.journal import KafkaJournal
from pipeline.evidence.retention import Period, RetentionPolicy
from pipeline.evidence.sweep import least_age
from pipeline.evidence.sweep import sweep as sweep_objects
from workers.cli.actor import ACTOR_FORM, check_actor
from workers.cli.common import Bootstrap, Json, logs_on_stderr, print_json, settings_for

app = typer.Typer(help="How long evidence is kept.", no_args_is_help=True, rich_markup_mode=None)
EXIT_DAMAGED = 4
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")]


def _age(text: str) -> timedelta:
    try:
        period = Period.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if period.years:
        raise typer.BadParameter(f"{text!r}: give days or weeks, such as 45d")
    return timedelta(days=period.days)


@app.command()
def apply(
    policy: Annotated[
        Path | None, typer.Option(help="Policy file; otherwise MEDIASIEVE_RETENTION_POLICY.", exists=True)
    ] = None,
    actor: Annotated[
        str, typer.Option(help=f"Who is named in the erasure records. {ACTOR_FORM}", callback=check_actor)
    ] = "retention",
    dry_run: DryRun = False,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Erase the evidence of decisions whose period is over.

    Each erasure is first announced on evidence.erasures. What is under a legal hold, or needed by another decision
    of the tenant, stays. Safe to run again at any time, also after it was killed. Exit 4 when the archive is damaged:
    what could not be read is named and left, all else is done.

    Example: mediasieve retention apply --policy retention.toml --dry-run
    """
    settings = settings_for(bootstrap)
    rules = RetentionPolicy.load(policy) if policy is not None else load_policy(settings)
    with logs_on_stderr():
        evidence = open_evidence(settings)
        eraser = evidence.eraser(KafkaJournal(settings.kafka))
        items = damaged = 0
        for found in apply_retention(evidence.archive, rules, eraser, evidence.now(), actor, dry_run=dry_run):
            if isinstance(found, Unreadable):
                damaged += 1
                _print_unreadable(found, json=json)
            else:
                items += 1
                _print_applied(found, json=json)
    if not json:
        Console().print(f"{items} media items are due under policy {rules.version}" if items else "nothing is due")
    if damaged:
        raise typer.Exit(EXIT_DAMAGED)


@app.command()
def sweep(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Age of an object since it was put, such as 45d or 8w.")
    ] = f"{least_age().days}d",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove objects that no archived decision names: what attempts left behind which were never committed.

    Refuses an age at which a record on its way may still need the object.

    Example: mediasieve retention sweep --older-than 45d --dry-run
    """
    age = _age(older_than)
    with logs_on_stderr():
        evidence = open_evidence(settings_for(None))
        found = sweep_objects(evidence.archive, evidence.vault, evidence.holds, age, evidence.now(), dry_run=dry_run)
        removed = 0
        for swept in found:
            removed += swept.obstacle is None
            state = "kept" if swept.obstacle else "would be removed" if dry_run else "removed"
            if json:
                print_json(
                    {"key": swept.key, "bytes": swept.size, "put_at": swept.modified, "state": state}
                    | {"obstacle": swept.obstacle}
                )
            else:
                Console(soft_wrap=True, highlight=False).print(
                    f"{state:<16}  {swept.key}  {swept.size} bytes  {swept.obstacle or ''}".rstrip(), markup=False
                )
    if not json:
        Console().print(f"{removed} objects {'would be removed' if dry_run else 'removed'}")


def as_json(applied: Applied) -> dict[str, object]:
    """One due media item; `state` is erased, due or kept."""
    plan = applied.plan
    return {
        "state": _state(applied),
        "tenant": plan.tenant,
        "media_id_sha256": plan.media_id_sha256,
        "decisions": sorted({str(record.decision_uid) for record in plan.records}),
        "due_since": applied.due_since,
        "sha256s": sorted({p.sha256 for p in plan.payloads}),
        "needed_elsewhere": sorted({p.sha256 for p in plan.kept}),
        "obstacle": applied.obstacle,
        "erasure_id": applied.erasure_id,
        "locked": list(applied.locked),
    }


def _print_unreadable(found: Unreadable, *, json: bool) -> None:
    uids = [str(uid) for uid in found.decision_uids]
    if json:
        print_json({"state": "unreadable", "tenant": found.tenant, "decisions": uids, "obstacle": found.cause})
        return
    line = f"unreadable  {found.tenant}  {', '.join(uids)}: {found.cause}"
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def _state(applied: Applied) -> str:
    return "kept" if applied.obstacle else "erased" if applied.erasure_id else "due"


def _print_applied(applied: Applied, *, json: bool) -> None:
    if json:
        print_json(as_json(applied))
        return
    plan = applied.plan
    uids = sorted({str(record.decision_uid) for record in plan.records})
    line = f"{_state(applied):<6}  {plan.tenant}  {', '.join(uids)}  due since {applied.due_since:%Y-%m-%d}"
    line += f"  {len(plan.payloads)} payloads, {len(plan.kept)} needed elsewhere"
    if applied.locked:
        line += f", {len(applied.locked)} unreadable objects stay locked"
    if applied.obstacle:
        line += f": {applied.obstacle}"
    Console(soft_wrap=True, highlight=False).print(line, markup=False)
