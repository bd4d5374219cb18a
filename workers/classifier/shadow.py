"""The shadow at stage 1: a second model on the crops of the same decoded image."""

from __future__ import annotations

import structlog

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.classifier.backends.onnx import OnnxSettings
from pipeline.detection.classifier.classifier import Classifier
from pipeline.detection.classifier.preprocess import CropSpec, Pixels
from pipeline.detection.shadow import Shadow
from pipeline.detection.shadow_settings import ShadowSettings
from schemas.media import Admission, ShadowTrail, StageScore
from schemas.types import StageName
from workers.classifier.settings import ClassifierSettings

log = structlog.get_logger("mediasieve")


class ClassifierShadow:
    """The classifier's part of a shadow; without one, or with a policy alone, it has no model."""

    def __init__(self, shadow: ShadowSettings, live: Bundle, settings: ClassifierSettings) -> None:
        """Loads the bundle and no model.

        Raises:
            BundleError: bundle or policy cannot be used, or a back end brings a model of its own.
        """
        self.rules = Shadow.load(shadow, live)
        self._classifier: Classifier | None = None
        if self.rules is not None and self.rules.own_pixels:
            if not isinstance(settings.backend, OnnxSettings):
                raise BundleError("shadow.bundle: only with classifier.backend.kind onnx, which runs a bundle's model")
            self._classifier = Classifier(self.rules.bundle, settings.backend, settings.batching)

    @property
    def crop_spec(self) -> CropSpec | None:
        """What its model looks at; None without a model."""
        return self._classifier.crop_spec if self._classifier else None

    def open(self) -> None:
        """Load the model."""
        if self._classifier:
            self._classifier.open()

    def close(self) -> None:
        """Free it."""
        if self._classifier:
            self._classifier.close()

    def trail(self, admission: Admission, crops: Pixels, error: str = "") -> ShadowTrail | None:
        """Its score of the crops; None for what is not compared, as where `error` says why there are none."""
        if self.rules is None:
            return None
        trail = self.rules.trail(admission.decision_uid)
        if trail is not None and error:
            log.error("shadow_failed", stage=StageName.CLASSIFIER.value, bundle=self.rules.bundle.version, detail=error)
            return None
        return self.rules.measured(trail, StageName.CLASSIFIER, lambda: self._score(crops))

    def _score(self, crops: Pixels) -> StageScore:
        assert self._classifier is not None and self.rules is not None  # noqa: S101, PT018 - `measured` asks only then
        return StageScore(
            stage=StageName.CLASSIFIER,
            score=self._classifier.score(crops),
            bundle_version=self.rules.bundle.version,
            model=self._classifier.model,
        )
