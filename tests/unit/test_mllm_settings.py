"""The section [mllm]: a back end must be described, and what the dialogue is told comes from here."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.backends.unconfigured import UnconfiguredVerifier
from pipeline.detection.mllm.dialogue import DialogueSettings
from workers.mllm.limits import GatedVerifier, LimitSettings
from workers.mllm.settings import MllmSettings
from workers.mllm.worker import make_verifier

OPENAI = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"backend": "openai"}, "openai.base_url"),
        ({"backend": "transformers"}, "transformers.path"),
        ({"passes": 3}, "passes"),
        ({"crops": 5}, "crops"),
        ({"report_max_tokens": 10}, "report_max_tokens"),
        ({"limits": {"tokens_per_minute": 10}}, "tokens_per_minute"),
        ({"max_wait_s": 0}, "max_wait_s"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        MllmSettings.model_validate(given)


def test_the_dialogue_is_told_what_was_set() -> None:
    settings = MllmSettings(passes=1, reason_max_tokens=100, report_max_tokens=300, crops=2)
    assert settings.dialogue == DialogueSettings(passes=1, reason_max_tokens=100, report_max_tokens=300, crops=2)


def test_the_dialogues_own_defaults_are_those_of_the_settings() -> None:
    assert MllmSettings().dialogue == DialogueSettings()


def test_by_default_no_model_is_asked_and_nothing_is_limited_by_tokens() -> None:
    assert isinstance(make_verifier(MllmSettings(), Bundle.load()), UnconfiguredVerifier)
    assert LimitSettings().tokens_per_minute is None


def test_a_server_is_asked_behind_the_limits() -> None:
    made = make_verifier(MllmSettings.model_validate({"backend": "openai", "openai": OPENAI}), Bundle.load())
    assert isinstance(made, GatedVerifier)
    assert made.model == "m"
