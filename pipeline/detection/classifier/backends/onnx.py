"""ONNX Runtime: the default backend, on CPU or on CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field

from pipeline.detection.classifier.backends.base import BackendError, Logits, checked
from pipeline.detection.classifier.preprocess import Pixels

INPUT = "crops"
OUTPUT = "logit"


class OnnxSettings(BaseModel):
    """How ONNX Runtime runs the bundle's classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["onnx"] = "onnx"
    device: Annotated[
        Literal["cpu", "cuda"],
        Field(description="cuda needs the package onnxruntime-gpu in place of onnxruntime"),
    ] = "cpu"
    intra_op_threads: Annotated[
        int, Field(ge=1, le=256, description="threads inside one inference; one a core that this worker owns")
    ] = 1


class OnnxBackend:
    """A model with uint8 `crops` (N, S, S, 3) in and float32 `logit` (N,) out."""

    def __init__(self, path: Path, model: str, settings: OnnxSettings) -> None:
        self.model = model
        self._path = path
        self._settings = settings
        self._session: Any = None

    def open(self) -> None:
        """Load the file and check its input and output.

        Raises:
            BackendError: no such device, or a file that is no such model.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._settings.intra_op_threads
        options.inter_op_num_threads = 1
        try:
            session = ort.InferenceSession(str(self._path), options, providers=self._providers())
        except Exception as error:  # onnxruntime's own exception types have no common public base
            raise BackendError(f"{self._path}: {error}; run `bundle verify` on its directory") from error
        _check_signature(session, self._path)
        self._session = session

    def score(self, crops: Pixels) -> Logits:
        """See `Backend.score`."""
        if self._session is None:
            raise BackendError(f"{self.model}: score() before open()")
        (logits,) = self._session.run([OUTPUT], {INPUT: crops})
        return checked(np.asarray(logits), len(crops), self.model)

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _providers(self) -> list[str]:
        if self._settings.device == "cpu":
            return ["CPUExecutionProvider"]
        available = ort.get_available_providers()
        if "CUDAExecutionProvider" not in available:
            raise BackendError(
                f"device=cuda, but this onnxruntime offers {', '.join(available)}:"
                " install onnxruntime-gpu in place of onnxruntime, or set device=cpu"
            )
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _check_signature(session: Any, path: Path) -> None:
    inputs = [(i.name, i.type, len(i.shape)) for i in session.get_inputs()]
    outputs = [(o.name, o.type, len(o.shape)) for o in session.get_outputs()]
    if inputs != [(INPUT, "tensor(uint8)", 4)] or outputs != [(OUTPUT, "tensor(float)", 1)]:
        raise BackendError(
            f"{path}: expected uint8 {INPUT!r} (N, S, S, 3) and float32 {OUTPUT!r} (N,), got {inputs} and {outputs}"
        )
