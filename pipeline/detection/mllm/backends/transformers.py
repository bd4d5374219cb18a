"""A multimodal model of transformers in this process: weights from a directory, answers held to a grammar.

Needs the `torch` extra; this module can be imported without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.detection.mllm.chat import Capabilities, ChatAnswer, ChatRequest

if TYPE_CHECKING:
    from pipeline.detection.mllm.backends.engine import Engine

_NEEDED = ("torch", "transformers", "xgrammar")


class ModelUnusable(Exception):
    """The model cannot run here; the text says why and what to do."""


class TransformersSettings(BaseModel):
    """Which weights run, and how many tokens at once.

    The directory holds what `save_pretrained` of a model and of its processor writes: `config.json`, safetensors,
    tokenizer, image processor and chat template. Nothing is downloaded and no code of the directory is run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, Field(min_length=1, max_length=4096, description="directory of the model and its processor")]
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$", description="auto: CUDA if there is one, else the CPU")
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="auto: bfloat16 on CUDA, float32 on the CPU; float16 on CUDA only"),
    ] = "auto"
    max_batch_tokens: Annotated[
        int,
        Field(
            ge=1024,
            le=4_194_304,
            description="of one batch: rows x (longest prompt, pictures included, + longest max_tokens)",
        ),
    ] = 32_768
    timeout_s: Annotated[
        float, Field(gt=0.0, le=3600.0, description="for one answer, its wait for a batch included")
    ] = 300.0

    @model_validator(mode="after")
    def _half_needs_cuda(self) -> Self:
        if self.dtype == "float16" and self.device == "cpu":
            raise ValueError("dtype float16 needs device cuda; use bfloat16 or float32 on the CPU")
        return self


class TransformersModel:
    """A `ChatModel`. Requests that wait at the same time are answered in one batch.

    A row's answer does not depend on its neighbours in float32, up to rounding; in bfloat16 the shape of the batch
    changes rounding enough to change an answer.
    """

    capabilities = Capabilities(guided_json=True, logprobs=True, prefill=True)

    def __init__(self, settings: TransformersSettings) -> None:
        self._settings = settings
        self._engine: Engine | None = None
        self._name = f"transformers:{settings.path}"[-128:]

    @property
    def model(self) -> str:
        """Name of the directory and, once open, the SHA-256 of its files."""
        return self._name

    def open(self) -> None:
        """Load the weights onto the device and start the batches.

        Raises:
            ModelUnusable: the extra is missing, the device is absent, or the directory holds no usable model.
        """
        for module in _NEEDED:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise ModelUnusable(
                    f"the transformers back end needs {error.name}: install mediasieve[torch]"
                ) from error
        from pipeline.detection.mllm.backends.engine import Engine  # noqa: PLC0415 - torch is optional

        self._engine = Engine.load(self._settings)
        self._name = self._engine.name

    def chat(self, request: ChatRequest) -> ChatAnswer:
        """See `ChatModel.chat`. Raises RuntimeError before `open` and after `close`."""
        if self._engine is None:
            raise RuntimeError("TransformersModel.chat was called before open() or after close()")
        return self._engine.chat(request)

    def close(self) -> None:
        """End the batches, whose requests raise ServerUnavailable, and free the weights."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
