"""`mediasieve replay`: what another policy would have decided."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.detection.bundle import Bundle
from pipeline.detection.policy import Policy
from pipeline.evaluation.monitoring.agreement import Tally
from pipeline.evaluation.monitoring.recorded import Recorded
from workers.cli.agreement_text import tables
from workers.cli.common import Bootstrap, Json, print_json, settings_for
from workers.cli.windows import Until, window


def replay(
    since: Annotated[str, typer.Option("--from", help="Begin, by admission: a time with zone, or an age such as 7d.")],
    policy: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Policy file to try.")],
    bootstrap: Bootstrap = None,
    until: Until = "1h",
    json: Json = False,
) -> None:
    """Apply a policy to the scores of past decisions: what would have changed. Nothing is published.

    No pixels are looked at again. Where the policy would have asked a stage that never saw the media, or a model's
    answer that the decision does not hold, the outcome is not_reproducible; samples of passes fill a part of that.
    What people made of a decision is no decision of the machine and is not replayed.

    Example: mediasieve replay --from 7d --policy ./policy.json
    """
    settings, rules = settings_for(bootstrap), Policy.load(policy)
    prior = Bundle.load(settings.bundle).manifest.prior
    if rules.fusion.prior != prior:
        raise typer.BadParameter(
            f"fusion.prior {rules.fusion.prior} differs from the prior {prior} that the bundle's scores are calibrated "
            "to; set both alike",
            param_hint="--policy",
        )
    recorded, span, tally = Recorded(settings.kafka), window(since, until), Tally()
    with Console(stderr=True).status("reading decisions"):
        samples = {sample.decision.decision_uid: sample for sample in recorded.samples(span)}
        for decision in recorded.decisions(span):
            tally.replayed(rules, decision, samples.get(decision.decision_uid))
    found = tally.report(span.since, span.until)
    if json:
        print_json(found.model_dump(mode="json"))
        return
    console = Console(highlight=False)
    for part in tables(found, "replayed"):
        console.print(part, markup=False)
