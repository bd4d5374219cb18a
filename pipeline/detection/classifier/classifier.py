"""Tier 1 as its worker uses it: crops in, one calibrated P(synthetic) out."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from pipeline.detection.bundle import Bundle
from pipeline.detection.calibration import Calibration
from pipeline.detection.classifier.backends.base import Backend
from pipeline.detection.classifier.backends.onnx import OnnxBackend, OnnxSettings
from pipeline.detection.classifier.backends.torch import TorchBackend, TorchSettings
from pipeline.detection.classifier.batching import BatchingSettings, MicroBatcher, OnBatch
from pipeline.detection.classifier.preprocess import CropSpec, Pixels

BackendSettings: TypeAlias = Annotated[OnnxSettings | TorchSettings, Field(discriminator="kind")]


class Classifier:
    """The bundle's classifier. `score` may be called from many threads; their crops share batches.

    Args:
        bundle: crops, calibration, and the ONNX file.
        backend: `OnnxSettings` runs the bundle's own model; `TorchSettings` brings weights and calibration.
        batching: when a batch closes.
        on_batch: for metrics: crops, seconds waited, seconds of inference.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: OnnxSettings | TorchSettings | None = None,
        batching: BatchingSettings | None = None,
        on_batch: OnBatch | None = None,
    ) -> None:
        settings = OnnxSettings() if backend is None else backend
        entry = bundle.manifest.classifier
        batch = BatchingSettings() if batching is None else batching
        if batch.max_crops < entry.crops.max_crops:
            raise ValueError(f"batching.max_crops {batch.max_crops} is below the bundle's {entry.crops.max_crops}")
        self.crop_spec: CropSpec = entry.crops
        self._backend, self._calibration = _chosen(bundle, settings)
        self._batcher = MicroBatcher(self._backend.score, batch, entry.crops.size_px, on_batch)

    @property
    def model(self) -> str:
        """For `StageScore.model`."""
        return self._backend.model

    def open(self) -> None:
        """Load the model, run it once on blank crops, start the inference thread.

        Raises:
            BackendError: the model cannot run here.
        """
        self._backend.open()
        size = self.crop_spec.size_px
        self._backend.score(np.zeros((1, size, size, 3), np.uint8))
        self._batcher.start()

    def score(self, crops: Pixels) -> float:
        """P(synthetic), at the bundle's prior, of one image: the calibrated mean logit over its crops.

        Args:
            crops: uint8 (K, S, S, 3) of `preprocess.crops`.

        Raises:
            ValueError: crops of another shape or dtype.
            ModelOutputError: the model gave something that is not a number.
        """
        logits = self._batcher.submit(crops).result()
        return self._calibration.probability(float(np.mean(logits, dtype=np.float64)))

    def close(self) -> None:
        """Answer those who wait, then free the model."""
        self._batcher.close()
        self._backend.close()


def _chosen(bundle: Bundle, settings: OnnxSettings | TorchSettings) -> tuple[Backend, Calibration]:
    if isinstance(settings, TorchSettings):
        return TorchBackend(settings), settings.calibration
    entry = bundle.manifest.classifier
    return OnnxBackend(bundle.path(entry.file), entry.model, settings), entry.calibration
