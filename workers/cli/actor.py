"""Who acts, as an option of several commands."""

from __future__ import annotations

import typer
from pydantic import TypeAdapter, ValidationError

from schemas.types import Identifier

ACTOR_FORM = "Letters, digits and . _ : @ -, such as jane.doe."
_ACTOR: TypeAdapter[str] = TypeAdapter(Identifier)


def check_actor(value: str) -> str:
    """For typer's `callback`. Raises BadParameter."""
    try:
        return _ACTOR.validate_python(value)
    except ValidationError as error:
        raise typer.BadParameter(
            f"{value!r}: at most 128 characters, the first a letter or digit. {ACTOR_FORM}"
        ) from error
