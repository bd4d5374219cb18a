"""A back end named in one word, as on the command line: `openai:URL[#MODEL]` or `transformers:PATH`."""

from __future__ import annotations

from pydantic import ValidationError

from pipeline.detection.mllm.backends.openai import OpenAISettings, served_models
from pipeline.detection.mllm.backends.transformers import TransformersSettings
from pipeline.detection.mllm.chat import ServerUnavailable
from workers.mllm.settings import MllmSettings

_FORMS = "openai:http://host:8000/v1, openai:http://host:8000/v1#MODEL or transformers:DIRECTORY"


class ChoiceInvalid(Exception):
    """The word names no usable back end; the text says why."""


def choose(word: str, settings: MllmSettings) -> MllmSettings:
    """The settings with this back end in place of theirs; limits, passes and the like stay.

    A server whose model is not named is asked what it serves, and must serve one only. The key and the timeout of
    `settings.openai` are kept where its address is the same.

    Raises:
        ChoiceInvalid: unknown form, no such model, or no server.
    """
    kind, _, rest = word.partition(":")
    try:
        if kind == "openai" and rest:
            return _changed(settings, backend="openai", openai=_openai(rest, settings.openai))
        if kind == "transformers" and rest:
            return _changed(settings, backend="transformers", transformers=TransformersSettings(path=rest))
    except ValidationError as error:
        raise ChoiceInvalid(f"{word}: {error.errors()[0]['msg']}; expected {_FORMS}") from error
    raise ChoiceInvalid(f"{word!r} names no back end; expected {_FORMS}")


def _openai(rest: str, known: OpenAISettings | None) -> OpenAISettings:
    url, _, model = rest.partition("#")
    same = known if known is not None and known.base_url.rstrip("/") == url.rstrip("/") else None
    named = (same or OpenAISettings(base_url=url, model="unnamed")).model_copy(update={"model": model or "unnamed"})
    return named if model else named.model_copy(update={"model": _only_model(named)})


def _only_model(settings: OpenAISettings) -> str:
    try:
        models = served_models(settings)
    except ServerUnavailable as error:
        raise ChoiceInvalid(f"{settings.base_url}: {error}") from error
    if len(models) != 1:
        served = ", ".join(models) or "none that it tells of"
        raise ChoiceInvalid(f"{settings.base_url} serves {served}; name one: openai:{settings.base_url}#MODEL")
    return models[0]


def _changed(settings: MllmSettings, **changes: object) -> MllmSettings:
    return settings.model_copy(update=changes)
