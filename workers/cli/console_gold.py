"""`mediasieve console gold list` and `report`: what reviewers are measured with, and how they did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipeline.evaluation.metrics import rate
from pipeline.settings import SettingsInvalid
from pipeline.streaming.clock import SystemClock
from workers.cli.common import Json, print_json, settings_for

if TYPE_CHECKING:
    from workers.console.domain.models import GoldAnswers
    from workers.console.domain.service import ReviewService


def list_gold(json: Json = False) -> None:
    """Every gold item, the oldest first, with how it was answered.

    Example: mediasieve console gold list
    """
    with _reviews() as service:
        found = service.gold_items(None)
    if json:
        for one in found:
            print_json(one.model_dump(mode="json"))
        return
    table = Table("decision", "tenant", "media", "label", "added by", "answers", "right")
    for one in found:
        uid, counts = str(one.decision_uid), (str(one.answers), str(one.correct))
        table.add_row(uid, one.tenant, one.media_id, one.label.value, one.added_by, *counts)
    Console().print(table)


def report(json: Json = False) -> None:
    """Each reviewer's share of right answers to gold items, with its 95 % interval, and what was taken for what.

    The interval is Clopper and Pearson's, which takes the items as independent. With few items it is wide: it is no
    ground for a ranking of reviewers.

    Example: mediasieve console gold report
    """
    with _reviews() as service:
        given = service.gold_answers(None)
    by_reviewer: defaultdict[str, list[GoldAnswers]] = defaultdict(list)
    for one in given:
        by_reviewer[one.reviewer].append(one)
    table = Table("reviewer", "right", "share", "95 % interval", "mistakes: truth > answer")
    for reviewer, answers in by_reviewer.items():
        wrong = [a for a in answers if a.said is not a.truth]
        right = rate(sum(a.count for a in answers if a.said is a.truth), sum(a.count for a in answers))
        low, high = right.interval
        if json:
            mistakes = [{"truth": a.truth.value, "said": a.said.value, "count": a.count} for a in wrong]
            print_json(
                {
                    "reviewer": reviewer,
                    "correct": right.count,
                    "answers": right.total,
                    "share": right.share,
                    "interval": [low, high],
                    "mistakes": mistakes,
                }
            )
            continue
        told = ", ".join(f"{a.truth.value} > {a.said.value}: {a.count}" for a in wrong)
        table.add_row(
            reviewer, f"{right.count} of {right.total}", f"{right.share:.2f}", f"{low:.2f} to {high:.2f}", told
        )
    if not json:
        Console().print(table)


@contextmanager
def _reviews() -> Iterator[ReviewService]:
    try:
        from workers.console.domain.service import ReviewService  # noqa: PLC0415 - its packages come with [web]
        from workers.web.database import open_database  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise SettingsInvalid(f"{error.name} is not installed; pip install 'mediasieve[web]'") from error
    settings = settings_for(None)
    engine = open_database(settings.database)
    try:
        yield ReviewService(engine, SystemClock(), settings.console.review)
    finally:
        engine.dispose()
