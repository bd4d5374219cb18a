"""Templates and static files. Every value is escaped, and what would hide or reorder text is written out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from schemas.review import Label
from workers.console.web.guard import FORM_FIELD, Visit
from workers.console.web.peaks import VIEW_BOX
from workers.explain.html import SIDES, label_is_left, label_rows
from workers.explain.times import milliseconds, moment, size
from workers.explain.visible import visible
from workers.explain.words import REASON_WORDS, outcome_words, stage_name

_FOLDER = Path(__file__).parent
_EXPLAIN = _FOLDER.parent.parent / "explain"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LABEL_WORDS = {
    Label.GENERATED: "generated",
    Label.AI_PROCESSED: "AI-processed",
    Label.PHOTOGRAPH: "photograph",
    Label.UNDECIDABLE: "undecidable",
}


@dataclass(frozen=True, slots=True)
class Static:
    """A file of ours; `version` changes with its bytes."""

    data: bytes
    media_type: str
    version: str


@cache
def static_files() -> dict[str, Static]:
    """By name. There are few and they are small."""
    files = sorted((_FOLDER / "static").iterdir())
    return {path.name: _static(path) for path in files if path.suffix in _TYPES}


def page(name: str, visit: Visit | None, status: int = 200, **values: Any) -> HTMLResponse:
    """A page for somebody who is logged in, or for nobody."""
    csrf = visit.session.csrf if visit else values.pop("csrf", "")
    template = _environment().get_template(f"{name}.html.jinja")
    return HTMLResponse(template.render(visit=visit, csrf=csrf, at=name, **values), status)


def age(seconds: float) -> str:
    """`3 min`, `2.5 h`, `4 d`."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86_400:.3g} d"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader([_FOLDER / "templates", _EXPLAIN]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(
        age=age,
        asset=_asset,
        is_left=label_is_left,
        label=LABEL_WORDS.__getitem__,
        moment=moment,
        ms=milliseconds,
        pretty=_pretty,
        reason=_reason,
        rows=label_rows,
        size=size,
        words=_words,
    )
    environment.globals.update(
        csrf_field=FORM_FIELD,
        labels=tuple(Label),
        outcome_words=outcome_words,
        panel_box=VIEW_BOX,
        sides=SIDES,
        stage_name=stage_name,
    )
    return environment


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> str:
    return f"/static/{name}?v={static_files()[name].version}"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _reason(code: str) -> str:
    """In words; a code of a later release as it is."""
    return next((words for known, words in REASON_WORDS.items() if known.value == code), _words(code))


def _words(value: str) -> str:
    return value.replace("_", " ")


def _static(path: Path) -> Static:
    data = path.read_bytes()
    return Static(data, _TYPES[path.suffix], hashlib.sha256(data).hexdigest()[:16])
