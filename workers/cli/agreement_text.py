"""An agreement on the terminal: the matrix, the cost, examples."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from pipeline.evaluation.monitoring.agreement import Agreement

_MOST_EXAMPLES = 20


def tables(found: Agreement, other: str) -> Iterator[Table | str]:
    """What a person reads; `other` names the rules that did not decide."""
    yield (
        f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC: {found.total} decisions by "
        f"{', '.join(found.live_rules) or '-'}; {other}: {', '.join(found.other_rules) or '-'}"
    )
    if not found.total:
        yield "nothing to compare"
        return
    yield (
        f"agree {found.agree} ({found.agree / found.total:.1%}), differ {found.differ} "
        f"({found.differ / found.total:.1%}), not_reproducible {found.unknown} ({found.unknown / found.total:.1%})"
    )
    yield _matrix(found, other)
    yield _cost(found, other)
    if found.examples:
        yield _examples(found)


def _matrix(found: Agreement, other: str) -> Table:
    columns = sorted({cell.other for cell in found.cells})
    table = Table(f"live, down; {other}, across", *columns)
    counts = {(cell.live, cell.other): cell.count for cell in found.cells}
    for live in sorted({cell.live for cell in found.cells}):
        table.add_row(live, *(str(counts.get((live, name), 0)) for name in columns))
    return table


def _cost(found: Agreement, other: str) -> Table:
    table = Table("reach stage", "live", other, "live ms", f"{other} ms")
    for reached in found.reached:
        span = str(reached.other) if reached.other == reached.most else f"{reached.other} to {reached.most}"
        times = (f"{ms.get(reached.stage, float('nan')):.1f}" for ms in (found.live_ms, found.other_ms))
        table.add_row(reached.stage.value, str(reached.live), span, *(t.replace("nan", "-") for t in times))
    return table


def _examples(found: Agreement) -> Table:
    table = Table("live", "other", "tenant", "media id", "scores", "why")
    for example in found.examples[:_MOST_EXAMPLES]:
        scores = " ".join(f"{k}={'-' if v is None else f'{v:.2f}'}" for k, v in example.live_scores.items())
        others = " ".join(f"{k}={'-' if v is None else f'{v:.2f}'}" for k, v in example.other_scores.items())
        shown = f"{scores} | {others}" if others else scores
        table.add_row(example.live, example.other, example.tenant, example.media_id, shown, example.why)
    return table
