"""`mediasieve erase`: the right to erasure, by media id."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from pipeline.evidence.assembly import open_evidence
from pipeline.evidence.journal import KafkaJournal
from pipeline.evidence.request import erase_media, plan_request
from schemas.wire import describe
from workers.cli.actor import ACTOR_FORM, check_actor
from workers.cli.common import Bootstrap, Json, logs_on_stderr, print_json, settings_for
from workers.cli.retention import DryRun


def erase(  # noqa: PLR0917 - typer names them
    tenant: Annotated[str, typer.Option(help="Whose media.")],
    media_id: Annotated[str, typer.Option(help="As its producer gave it, or as it was minted.")],
    actor: Annotated[str, typer.Option(help=f"Who erases; kept in the audit log. {ACTOR_FORM}", callback=check_actor)],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log, so name nobody.")],
    dry_run: DryRun = False,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Destroy the keys of everything that was decided on one media id; what was decided stays provable.

    Refused under a legal hold. Does not wait for a retention period or an Object Lock: a locked object stays, but
    nobody can read it. What another media id of the tenant still needs stays readable.

    Example: mediasieve erase --tenant acme --media-id photo-17 --actor dpo --reason "request 2026-113"
    """
    settings = settings_for(bootstrap)
    with logs_on_stderr():
        evidence = open_evidence(settings)
        eraser = evidence.eraser(KafkaJournal(settings.kafka))
        if dry_run:
            plan, done = plan_request(evidence.archive, eraser, tenant, media_id), None
        else:
            try:
                plan, done = erase_media(evidence.archive, eraser, tenant, media_id, actor=actor, reason=reason)
            except ValidationError as error:
                raise typer.BadParameter(describe(error)) from error
    found = {
        "state": "due" if done is None else "erased",
        "decisions": sorted({str(record.decision_uid) for record in plan.records}),
        "sha256s": sorted({p.sha256 for p in plan.payloads}),
        "needed_elsewhere": sorted({p.sha256 for p in plan.kept}),
        "obstacle": plan.obstacle,
        "erasure_id": None if done is None else done.erasure_id,
        "locked": [] if done is None else list(done.locked),
    }
    if json:
        print_json(found)
        return
    console = Console(soft_wrap=True, highlight=False)
    for name, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        console.print(f"{name:<17} {shown or '-'}", markup=False)
