"""The dialogue with a model in this process: random weights, and weights that know two reports by heart."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.detection.mllm.backends.base import VerifyRequest
from pipeline.detection.mllm.backends.transformers import TransformersModel, TransformersSettings
from pipeline.detection.mllm.chat import ChatRequest, Message
from pipeline.detection.mllm.dialogue import DialogueSettings, DialogueVerifier
from pipeline.detection.mllm.prompt import Prompts
from pipeline.detection.mllm.report import answer_schema
from pipeline.detection.mllm.verdict import SYNTHETIC, Basis
from schemas.decision import ReasonCode
from schemas.forensics import Hypothesis
from tests.support.mllm import encoded, picture, verify_request

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        any(importlib.util.find_spec(m) is None for m in ("torch", "transformers", "xgrammar")),
        reason="needs mediasieve[torch]",
    ),
    # torch and its friends warn of their own future
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.timeout(900),
]
TIMES = 100
THREADS = 50
BRIEF = Prompts("brief", "Examine both pictures.", "Write the report.")
"""Random weights understand no instructions, and a short prompt is read sooner."""


def item(number: int) -> VerifyRequest:
    return verify_request(encoded(picture(96 + number, 64, seed=number)))


def opened(path: Path) -> TransformersModel:
    settings = TransformersSettings(path=str(path), device="cpu", max_batch_tokens=131_072, timeout_s=3600)
    model = TransformersModel(settings)
    model.open()
    return model


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersModel]:
    from tests.support.tiny_mllm import save_tiny_mllm

    model = opened(save_tiny_mllm(tmp_path_factory.mktemp("random")))
    yield model
    model.close()


@pytest.fixture(scope="module")
def taught_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersModel]:
    from tests.support.tiny_mllm import REPORTS, save_tiny_mllm

    model = opened(save_tiny_mllm(tmp_path_factory.mktemp("taught"), REPORTS))
    yield model
    model.close()


def shortened(schema: Any) -> Any:
    """The same schema with texts and lists so short that random weights come to an end."""
    if isinstance(schema, dict):
        small = {name: shortened(part) for name, part in schema.items()}
        return small | {k: min(small[k], most) for k, most in (("maxLength", 16), ("maxItems", 4)) if k in small}
    return [shortened(part) for part in schema] if isinstance(schema, list) else schema


def test_random_weights_write_valid_json_under_the_grammar(random_model: TransformersModel) -> None:
    full, schema = answer_schema(), shortened(answer_schema())
    shown = encoded(picture())

    def ask(seed: int) -> str:
        turn = Message("user", "Report.", (shown, shown))
        answer = random_model.chat(
            ChatRequest(messages=(turn,), max_tokens=900, temperature=1.0, seed=seed, schema=schema)
        )
        assert answer.finish == "stop", answer.text
        return answer.text

    with ThreadPoolExecutor(THREADS) as pool:
        texts = list(pool.map(ask, range(TIMES)))
    assert len(set(texts)) > TIMES // 2
    for text in texts:
        jsonschema.validate(json.loads(text), full)


def test_random_weights_end_in_valid_reports_or_clean_escalations(random_model: TransformersModel) -> None:
    settings = DialogueSettings(reason_max_tokens=16, report_max_tokens=128)
    verifier = DialogueVerifier(random_model, BRIEF, settings, backend="transformers")
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(verifier.verify, map(item, range(TIMES))))
    outcomes = Counter(result.failure for result in results)
    print(f"outcomes of {TIMES} dialogues: {dict(outcomes)}")
    assert outcomes.keys() <= {None, ReasonCode.MLLM_INVALID_REPORT}
    for result in results:
        assert result.trace is not None
        assert (result.report is None) == bool(result.detail)
        assert [turn.name for turn in result.trace.turns][:2] == ["reason", "report"]


@pytest.mark.parametrize("passes", [1, 2])
def test_taught_weights_give_the_report_and_its_token_probabilities(
    taught_model: TransformersModel, passes: Any
) -> None:
    settings = DialogueSettings(passes=passes, reason_max_tokens=16, report_max_tokens=400)
    verifier = DialogueVerifier(taught_model, Prompts.packaged(), settings, backend="transformers")
    result = verifier.verify(verify_request())
    assert result.failure is None, result.detail
    assert result.report is not None
    assert result.report.hypothesis is Hypothesis.AUTHENTIC
    assert result.report.observations[0].feature == "slope"
    opinion = result.opinion
    assert opinion is not None
    assert opinion.basis is Basis.TOKENS
    # It was taught gan once for three times authentic.
    assert opinion.raw == pytest.approx(0.25, abs=0.15)
    assert sum(opinion.shares[hypothesis] for hypothesis in SYNTHETIC) == pytest.approx(opinion.raw, abs=0.01)
    assert opinion.coverage == pytest.approx(1.0, abs=1e-3)
    assert result.model.startswith("taught0@sha256:")
