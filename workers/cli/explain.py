"""`mediasieve explain`: the whole story of one decision."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console

from pipeline.evidence.log.errors import KeyFileInvalid
from pipeline.media.errors import ContentCorrupt, StoreUnavailable
from workers.cli.audit_common import Key
from workers.cli.common import Bootstrap, Json, logs_on_stderr, print_json, settings_for
from workers.explain.collect import Explanation
from workers.explain.collect import explain as collect
from workers.explain.evidence import EvidenceReader
from workers.explain.html import render
from workers.explain.opening import policy_of, prover_of, reader_of
from workers.explain.pictures import PictureMaker
from workers.explain.proof import Prover
from workers.explain.sources import FindingUnreadable, Found, Source, find_in, from_file, latest_in
from workers.explain.text import print_story
from workers.explain.topics import TopicSource
from workers.settings import Settings

EXIT_NOT_FOUND = 3
EXIT_DOES_NOT_HOLD = 4


def explain(
    decision_uid: Annotated[UUID | None, typer.Argument(help="The decision; or give --tenant and --media-id.")] = None,
    *,
    tenant: Annotated[str, typer.Option(help="Tenant of --media-id.")] = "default",
    media_id: Annotated[str | None, typer.Option(help="Explain the latest decision on this media item.")] = None,
    finding: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Read findings from this file, one JSON a line.")
    ] = None,
    kafka: Annotated[bool, typer.Option("--kafka", help="Look on the topics too, as far as they are kept.")] = False,
    proof: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Check this file of `mediasieve audit prove`.")
    ] = None,
    key: Key = None,
    html: Annotated[Path | None, typer.Option(help="Write the page to this file; image and panel are in it.")] = None,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Tell how a decision came about and whether its evidence still holds.

    Looks in the archive first, then on the topics (--kafka), then in a file (--finding).
    Exit 0 when the decision was found, 3 when it was not, 4 when a digest or the proof does not hold.

    Example: mediasieve explain 60390219-d96b-5ace-9119-e28ed6212a62 --html story.html
    """
    if (decision_uid is None) == (media_id is None):
        raise typer.BadParameter("give the uid of a decision, or --media-id", param_hint="DECISION_UID")
    settings = settings_for(bootstrap)
    with logs_on_stderr():
        prover = _prover(settings, proof, key)
        reader, sources = _sources(settings, finding, kafka=kafka)
        found = _find(sources, decision_uid, tenant, media_id or "")
        if found is None:
            what = f"decision {decision_uid}" if decision_uid else f"decision on {tenant}/{media_id}"
            where = reader.no_store or "released passes are not archived"
            _complain(f"no {what} was found; {where}: try --kafka or --finding FILE")
            raise typer.Exit(EXIT_NOT_FOUND)
        explanation = collect(found, reader, prover, policy_of(settings))
        if html is not None:
            _write_page(explanation, html, settings)
    if json:
        print_json(explanation.story.model_dump(mode="json"))
    else:
        print_story(explanation.story, Console(soft_wrap=True, highlight=False))
    raise typer.Exit(0 if explanation.story.holds else EXIT_DOES_NOT_HOLD)


def _prover(settings: Settings, proof: Path | None, key: Path | None) -> Prover:
    try:
        return prover_of(settings, proof, key)
    except KeyFileInvalid as error:
        raise typer.BadParameter(str(error), param_hint="--key") from error
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--proof") from error


def _find(sources: list[Source], uid: UUID | None, tenant: str, media_id: str) -> Found | None:
    try:
        wanted = uid or latest_in(sources, tenant, media_id)
        return find_in(sources, wanted) if wanted else None
    except StoreUnavailable as error:
        _complain(f"the archive cannot be read now: {error}")
        raise typer.Exit(1) from error
    except ContentCorrupt as error:
        _complain(f"the archive does not hold: {error}")
        raise typer.Exit(EXIT_DOES_NOT_HOLD) from error


def _write_page(explanation: Explanation, path: Path, settings: Settings) -> None:
    with closing(PictureMaker(settings.classifier.decode, settings.classifier.sandbox)) as maker:
        page = render(explanation.story, explanation.pictures(maker.make))
    try:
        _replace_private(path, page)
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--html") from error


def _replace_private(path: Path, page: str) -> None:
    """Whole or not at all, and for its owner alone: the page holds the image."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sources(settings: Settings, finding: Path | None, *, kafka: bool) -> tuple[EvidenceReader, list[Source]]:
    reader, archive = reader_of(settings)
    sources: list[Source] = [archive] if archive is not None else []
    if kafka:
        sources.append(TopicSource(settings.kafka))
    if finding is not None:
        try:
            sources.append(from_file(finding))
        except FindingUnreadable as error:
            raise typer.BadParameter(str(error), param_hint="--finding") from error
    return reader, sources


def _complain(text: str) -> None:
    Console(stderr=True).print(f"mediasieve: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
