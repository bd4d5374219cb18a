"""Which prompt belongs to which photograph: of a toy model by its own file, of a text model by one that is given."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

TOY_PROMPTS = "prompts.json"


class PromptsUnfit(Exception):
    """No prompts for a text model, or a line that is none."""


class Prompt(BaseModel):
    """A line of the prompts file: a text, and the keys of the photographs that it describes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1)
    photographs: tuple[str, ...] = ()


def read_prompts(model: str, file: Path | None) -> tuple[list[str], dict[str, int]]:
    """Texts (none for a toy model), and the prompt number by photograph key.

    Raises:
        PromptsUnfit: no file for a text model, or a line that is no prompt.
    """
    own = Path(model, TOY_PROMPTS)
    if own.is_file():
        return [], json.loads(own.read_text(encoding="utf-8"))["prompt_of"]
    if file is None:
        raise PromptsUnfit(f"{model}: no toy model, so it takes texts; give --prompts")
    prompts = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            prompts.append(Prompt.model_validate_json(line))
        except ValidationError as error:
            raise PromptsUnfit(f"{file} line {number}: {error.errors()[0]['msg']}") from error
    texts = [prompt.text for prompt in prompts]
    return texts, {key: number for number, prompt in enumerate(prompts) for key in prompt.photographs}
