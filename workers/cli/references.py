"""`mediasieve references`: what reviews taught, and which spectral reference decides."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.evidence.log.errors import LogError
from pipeline.media.errors import ContentMissing
from pipeline.settings import load_settings
from schemas.reference import ReferencePointer
from schemas.wire import UnknownMajorVersion
from workers.adaptation.history import published
from workers.adaptation.keys import load_public_keys, make_keys
from workers.adaptation.labels import LabelSet
from workers.adaptation.publication import PublicationRefused
from workers.adaptation.records import Candidate, Refusal
from workers.adaptation.wiring import Workshop
from workers.cli.actor import ACTOR_FORM, check_actor
from workers.cli.audit_common import say
from workers.cli.common import Bootstrap, Json, logs_on_stderr, print_json, settings_for
from workers.settings import Settings

_MAX_REASON = 1024


def _check_reason(value: str) -> str:
    if len(value) > _MAX_REASON:
        raise typer.BadParameter(f"{len(value)} characters; at most {_MAX_REASON}")
    return value


app = typer.Typer(
    help="References of the spectral stage that were learned from reviews.", no_args_is_help=True, rich_markup_mode=None
)
Actor = Annotated[str, typer.Option(help=f"Who does it. {ACTOR_FORM}", callback=check_actor)]
Reason = Annotated[str, typer.Option(help="Why; kept with the pointer.", callback=_check_reason)]
Version = Annotated[str, typer.Argument(help="First digits of a candidate's version, as `list` shows them.")]


@app.command()
def keygen(
    directory: Annotated[Path, typer.Argument(help="Where the two files go; made if need be.")],
) -> None:
    """Make the key pair that signs references. The private key belongs to the adaptation worker and operators alone.

    Example: mediasieve references keygen /etc/mediasieve/references
    """
    with _plainly():
        private, public = make_keys(directory, load_settings(Settings).references.key_name)
        say(f"MEDIASIEVE_REFERENCES__PRIVATE_KEY={private}\nMEDIASIEVE_REFERENCES__PUBLIC_KEYS={public}")


@app.command("list")
def list_references(
    refused: Annotated[bool, typer.Option("--refused", help="Also sample sets that the gate refused.")] = False,
    json: Json = False,
) -> None:
    """Candidates and references, oldest first, with what each is now.

    Example: mediasieve references list
    """
    with _plainly():
        workshop = Workshop.open(load_settings(Settings))
        history = _history(workshop)
        rows = [_row(candidate, history) for candidate in workshop.store.candidates(workshop.base)]
        refusals = workshop.store.refusals(workshop.base) if refused else []
    own = {"version": workshop.base, "family": "", "state": _state(None, history)}
    if json:
        for row in (own, *rows, *map(_refused_row, refusals)):
            print_json(row)
        return
    table = Table("version", "family", "samples", "AUC left out", "built", "state")
    table.add_row(workshop.base[:12], "(the bundle's own)", "", "", "", own["state"])
    for row in rows:
        auc = f"{_rate(row['old_auc'])} -> {_rate(row['new_auc'])}"
        table.add_row(row["version"][:12], row["family"], str(row["samples"]), auc, row["built_at"], row["state"])
    Console().print(table)
    for refusal in refusals:
        say(f"refused {refusal.refused_at.isoformat()} {refusal.family}: {refusal.why}")


@app.command()
def show(version: Version) -> None:
    """All that is known of one candidate, as JSON: samples with their provenance, what was left out, the gate.

    Example: mediasieve references show 7e0fdc1c
    """
    with _plainly():
        workshop = Workshop.open(load_settings(Settings))
        print_json(_found(workshop, version).model_dump(mode="json"))


@app.command()
def labels(json: Json = False) -> None:
    """How many images people of the tenants that teach have labelled, by family, and how often they differ.

    Example: mediasieve references labels
    """
    with _plainly():
        workshop = Workshop.open(load_settings(Settings))
        found = workshop.labels()
    rows = [_family_row(found, family) for family in found.families()]
    summary = {"images": len(found.agreed), "disputed": len(found.disputed), "photographs": len(found.photographs())}
    if json:
        print_json(summary | {"families": rows})
        return
    say(f"{summary['images']} images agreed on, {summary['disputed']} disputed, {summary['photographs']} photographs")
    for row in rows:
        say(f"{row['family']}: {row['images']} images; {row['differing']} of {row['judged_twice']} judged twice differ")


@app.command()
def build(
    family: Annotated[str, typer.Argument(help="As reviewers have named it.")],
    min_samples: Annotated[int, typer.Option(help="Fewest usable images.", min=10, max=200)] = 10,
    json: Json = False,
) -> None:
    """Build a candidate from what is labelled now; exit 1 with the reason when the gate refuses it.

    Example: mediasieve references build flux
    """
    with _plainly():
        workshop = Workshop.open(load_settings(Settings))
        found, current = workshop.labels(), workshop.current(workshop.publisher())
        if family in current.reference.families:
            raise PublicationRefused(f"the family {family} is part of what decides, {current.version[:12]}, already")
        if family not in found.families():
            raise PublicationRefused(
                f"no confirmed image is of the family {family}; see `mediasieve references labels`"
            )
        with closing(workshop.measurer()) as measurer:
            result = workshop.builder(measurer, min_samples).build(current, found, family)
    if json:
        print_json(result.model_dump(mode="json"))
    elif isinstance(result, Refusal):
        say(f"refused: {result.why}")
    else:
        say(f"{result.version}\nlet it watch: mediasieve references promote {result.version[:12]} --shadow")
    raise typer.Exit(1 if isinstance(result, Refusal) else 0)


@app.command()
def promote(
    version: Version,
    actor: Actor,
    reason: Reason = "",
    shadow: Annotated[bool, typer.Option("--shadow", help="Let it watch beside the one that decides.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Let a candidate decide from each worker's next batch on, or let it watch first.

    Example: mediasieve references promote 7e0fdc1c --actor ops --shadow
    """
    with _plainly():
        workshop = Workshop.open(settings_for(bootstrap))
        publisher, candidate = workshop.publisher(), _found(workshop, version)
        _require_agreed(workshop.labels(), candidate)
        publish = publisher.shadow if shadow else publisher.promote
        _say_published(publish(candidate, actor, reason))


@app.command()
def rollback(
    actor: Actor,
    reason: Reason = "",
    to: Annotated[str | None, typer.Option(help="A version that decides or decided before, or `bundle`.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Let the reference before the present one decide again, or the one named; nobody watches then.

    A second rollback goes back further. `--to` the version that decides now only ends the watching.

    Example: mediasieve references rollback --actor ops --reason "alarms on scans"
    """
    with _plainly():
        _say_published(Workshop.open(settings_for(bootstrap)).publisher().rollback(to, actor, reason))


@app.command()
def announce(bootstrap: Bootstrap = None) -> None:
    """Write the newest pointer to the topic again, after a publication that was cut off. Harmless at any time.

    Example: mediasieve references announce
    """
    with _plainly():
        _say_published(Workshop.open(settings_for(bootstrap)).publisher().announce_again())


@contextmanager
def _plainly() -> Iterator[None]:
    """What the learning loop refuses is one clear line and exit code 1; logs on standard error."""
    try:
        with logs_on_stderr():
            yield
    except (LogError, PublicationRefused, ContentMissing, UnknownMajorVersion) as error:
        say(f"mediasieve: {error}", error=True)
        sys.exit(1)


def _history(workshop: Workshop) -> list[ReferencePointer]:
    return published(workshop.store, workshop.base, load_public_keys(workshop.settings.references))


def _require_agreed(labels: LabelSet, candidate: Candidate) -> None:
    """The gate looked at labels that people may have changed since."""
    gone = labels.contradicted(candidate.samples, candidate.family)
    if gone:
        raise PublicationRefused(
            f"{len(gone)} of the {len(candidate.samples)} samples of {candidate.version[:12]} are no longer agreed to "
            f"be {candidate.family}, the first by review {gone[0].review_id}: `mediasieve references build "
            f"{candidate.family}` tries it again"
        )


def _found(workshop: Workshop, version: str) -> Candidate:
    candidates = workshop.store.candidates(workshop.base)
    found = [candidate for candidate in candidates if candidate.version.startswith(version)]
    if len(found) != 1:
        raise PublicationRefused(
            f"{version}: {len(found)} candidates of that version; see `mediasieve references list`"
        )
    return found[0]


def _row(candidate: Candidate, history: list[ReferencePointer]) -> dict[str, Any]:
    return {
        "version": candidate.version,
        "family": candidate.family,
        "samples": candidate.gate.samples,
        "old_auc": candidate.gate.old_auc,
        "new_auc": candidate.gate.new_auc,
        "parent": candidate.parent,
        "built_at": candidate.built_at.isoformat(timespec="seconds"),
        "state": _state(candidate.version, history),
    }


def _rate(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _refused_row(refusal: Refusal) -> dict[str, Any]:
    return {"family": refusal.family, "state": "refused", "why": refusal.why, "refused_at": refusal.refused_at}


def _state(version: str | None, history: list[ReferencePointer]) -> str:
    """`version` None: the bundle's own."""
    decided = [pointer.active.version if pointer.active else None for pointer in history] or [None]
    if decided[-1] == version:
        return "decides"
    if history and history[-1].shadow is not None and history[-1].shadow.version == version:
        return "watches"
    return "decided before" if version in decided or version is None else "candidate"


def _family_row(found: LabelSet, family: str) -> dict[str, Any]:
    twice, differing = found.double_reviews(family)
    return {"family": family, "images": len(found.members(family)), "judged_twice": twice, "differing": differing}


def _say_published(pointer: ReferencePointer) -> None:
    decides = pointer.active.version if pointer.active is not None else "the bundle's own"
    watches = pointer.shadow.version if pointer.shadow is not None else "nobody"
    say(f"number {pointer.sequence}: {decides} decides, {watches} watches")
