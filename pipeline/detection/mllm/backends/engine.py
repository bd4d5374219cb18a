"""The model of `transformers.py` once it is loaded: requests in, batches through `generate`, answers out."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import structlog
import torch
import transformers

from pipeline.detection.mllm.backends.batching import Batcher, BatcherClosed
from pipeline.detection.mllm.backends.decoding import Chooser, Ending, Row, written_tokens
from pipeline.detection.mllm.backends.encoding import Encoded, Encoder, control_tokens, stacked
from pipeline.detection.mllm.backends.grammar import GrammarError, Grammars
from pipeline.detection.mllm.backends.transformers import ModelUnusable, TransformersSettings
from pipeline.detection.mllm.chat import ChatAnswer, ChatFailed, ChatRequest, ServerUnavailable
from schemas.decision import ReasonCode

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 1 << 20
_CLOSING = "the model is being closed"
_FAULTS = {
    Ending.NO_TOKEN: (ReasonCode.MLLM_INVALID_REPORT, "the grammar allows none of the model's tokens here"),
    Ending.NOT_FINITE: (ReasonCode.MLLM_UNAVAILABLE, "the logits are not finite; try dtype bfloat16 or float32"),
}


class DeviceLost(Exception):
    """The accelerator takes no more work from this process; only a new process helps, so the worker shall end."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request on its way through a batch. `deadline`: a time of `time.monotonic`."""

    encoded: Encoded
    request: ChatRequest
    deadline: float


class Engine:
    """Made by `load`. `chat` is thread-safe; one thread of its own runs the batches."""

    def __init__(self, name: str, model: Any, processor: Any, settings: TransformersSettings) -> None:
        self.name = name
        self._model = model
        self._settings = settings
        self._encoder = Encoder(processor)
        self._stop_ids = _stop_ids(model, processor.tokenizer)
        pad_id = processor.tokenizer.pad_token_id
        self._pad_id = self._stop_ids[0] if pad_id is None else pad_id
        vocabulary = int(model.get_output_embeddings().weight.shape[0])
        self._grammars = Grammars(processor.tokenizer, vocabulary, self._stop_ids, model.device)
        self._banned = _banned(processor.tokenizer, self._grammars.token_bytes, self._stop_ids).to(model.device)
        self._context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        # A model's own defaults, such as a repetition penalty, would be merged into ours.
        model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=list(self._stop_ids), pad_token_id=self._pad_id
        )
        self._closing = threading.Event()
        self._batcher: Batcher[Job, ChatAnswer] = Batcher(self._run, settings.max_batch_tokens)

    @classmethod
    def load(cls, settings: TransformersSettings) -> Self:
        """Weights and processor from the settings' directory.

        Raises:
            ModelUnusable: see `TransformersModel.open`.
        """
        directory = Path(settings.path)
        if not (directory / "config.json").is_file():
            raise ModelUnusable(f"path {settings.path!r}: no config.json there; give the directory of a saved model")
        device = _device(settings.device)
        dtype = _dtype(settings.dtype, device)
        kept: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor = transformers.AutoProcessor.from_pretrained(directory, **kept)
            model = transformers.AutoModelForImageTextToText.from_pretrained(
                directory, dtype=dtype, use_safetensors=True, **kept
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise ModelUnusable(f"path {settings.path!r}: no usable image-text-to-text model: {error}") from error
        if not getattr(processor, "chat_template", None) or not hasattr(processor, "image_processor"):
            raise ModelUnusable(f"path {settings.path!r}: the processor has no chat template or no image processor")
        name = f"{directory.resolve().name}@sha256:{directory_digest(directory)[:16]}"[-128:]
        log.info("mllm_model_loaded", model=name, device=str(device), dtype=str(dtype))
        return cls(name, model.eval().to(device), processor, settings)

    def chat(self, request: ChatRequest) -> ChatAnswer:
        """See `ChatModel.chat`.

        Raises:
            DeviceLost: the process is of no use any more.
        """
        job = self._job(request, time.monotonic() + self._settings.timeout_s)
        try:
            return self._batcher.submit(job, job.encoded.kind, (job.encoded.length, request.max_tokens))
        except BatcherClosed as error:
            raise ServerUnavailable(_CLOSING) from error
        except ValueError as error:
            detail = f"max_batch_tokens={self._settings.max_batch_tokens} is too small: {error}"
            raise ChatFailed(ReasonCode.MLLM_UNAVAILABLE, detail) from error

    def close(self) -> None:
        """End the batches and free the weights."""
        self._closing.set()
        self._batcher.close()
        del self._model
        _free_cache()

    def _job(self, request: ChatRequest, deadline: float) -> Job:
        try:
            self._matcher(request)
            encoded = self._encoder.encode(request)
        except (GrammarError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise ChatFailed(ReasonCode.MLLM_UNAVAILABLE, f"request: {type(error).__name__}: {error}") from error
        if self._context is not None and encoded.length + request.max_tokens > self._context:
            detail = f"the prompt's {encoded.length} tokens and max_tokens={request.max_tokens} exceed the model's "
            raise ChatFailed(ReasonCode.MLLM_UNAVAILABLE, f"{detail}{self._context}")
        return Job(encoded, request, deadline)

    def _matcher(self, request: ChatRequest) -> Any:
        return None if request.schema is None else self._grammars.matcher(request.schema, request.prefill)

    def _run(self, jobs: Sequence[Job]) -> list[ChatAnswer | Exception]:
        """A batch that fails, for want of memory perhaps, is tried again one by one.

        Raises:
            DeviceLost: an illegal access or the like, after which CUDA fails every call of a process.
        """
        try:
            rows = self._generate(jobs)
        except torch.AcceleratorError as error:
            raise DeviceLost(f"{self._model.device}: {error}") from error
        except Exception as error:  # whatever a model raises on one batch is no reason to refuse the next
            cause = f"{type(error).__name__}: {error}"
            if len(jobs) == 1:
                return [ChatFailed(ReasonCode.MLLM_UNAVAILABLE, cause)]
            log.warning("mllm_batch_failed", rows=len(jobs), cause=cause)
            _free_cache()
            return [result for job in jobs for result in self._run([job])]
        return [self._outcome(job, row) for job, row in zip(jobs, rows, strict=True)]

    def _generate(self, jobs: Sequence[Job]) -> list[Row]:
        rows = [self._row(job) for job in jobs]
        live = [index for index, row in enumerate(rows) if row.ending is None]
        if not live:
            return rows
        chooser = Chooser([rows[i] for i in live], self._grammars, self._banned, self._stop_ids, self._closing.is_set)
        inputs = stacked([jobs[i].encoded for i in live], self._pad_id)
        with torch.inference_mode():
            self._model.generate(
                **{name: self._placed(tensor) for name, tensor in inputs.items()},
                max_new_tokens=max(rows[i].max_tokens for i in live),
                logits_processor=[chooser.choose],
                stopping_criteria=[chooser.finished],
            )
        return rows

    def _row(self, job: Job) -> Row:
        asked = job.request
        row = Row(asked.max_tokens, asked.temperature, asked.seed, job.deadline, self._matcher(asked))
        if self._closing.is_set():
            row.ending = Ending.CLOSED
        elif time.monotonic() > job.deadline:
            row.ending = Ending.DEADLINE
        return row

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._model.dtype if tensor.is_floating_point() else None
        return tensor.to(self._model.device, dtype)

    def _outcome(self, job: Job, row: Row) -> ChatAnswer | Exception:
        ending = row.ending
        tokens = written_tokens(row, self._grammars.token_bytes, self._stop_ids)
        text = "".join(token.text for token in tokens)
        if ending is Ending.CLOSED:
            return ServerUnavailable(_CLOSING)
        if ending is Ending.DEADLINE:
            detail = f"no answer within timeout_s={self._settings.timeout_s:g}"
            return ChatFailed(ReasonCode.MLLM_TIMEOUT, detail, text)
        if ending in _FAULTS:
            return ChatFailed(*_FAULTS[ending], text)
        return ChatAnswer(
            text=text,
            finish="stop" if ending is Ending.STOP else "length",
            tokens=tokens,
            prompt_tokens=job.encoded.length,
            completion_tokens=len(row.steps),
        )


def directory_digest(directory: Path) -> str:
    """SHA-256, lower-case hex, over the name and the SHA-256 of each file of the directory, in order of names."""
    whole = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        own = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                own.update(chunk)
        whole.update(f"{own.hexdigest()}  {path.name}\n".encode())
    return whole.hexdigest()


def _free_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnusable(f"device={wanted}, but torch finds no CUDA device; set device=cpu or auto")
    return torch.device(wanted)


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    found: torch.dtype = getattr(torch, wanted)
    return found


def _stop_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    stated = model.generation_config.eos_token_id
    found = [] if stated is None else [stated] if isinstance(stated, int) else list(stated)
    if tokenizer.eos_token_id is not None:
        found.append(tokenizer.eos_token_id)
    if not found:
        raise ModelUnusable("the model names no token that ends an answer: set eos_token_id in its generation_config")
    return tuple(dict.fromkeys(found))


def _banned(tokenizer: Any, token_bytes: Sequence[bytes], stop_ids: Sequence[int]) -> torch.Tensor:
    """Bool (V,): tokens without a text, and control tokens, which would be read as text once quoted."""
    control = {tokenizer.convert_tokens_to_ids(text) for text in control_tokens(tokenizer)}
    return torch.tensor(
        [i not in stop_ids and (not text or i in control) for i, text in enumerate(token_bytes)], dtype=torch.bool
    )
