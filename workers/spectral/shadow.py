"""The shadow at stage 2: a second reference on the same decoded image."""

from __future__ import annotations

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.shadow import Shadow
from pipeline.detection.shadow_settings import ShadowSettings
from pipeline.detection.spectral.analyser import SpectralAnalyser
from pipeline.media.decode import DecodedImage
from schemas.media import ShadowTrail, StageScore
from schemas.types import StageName


class SpectralShadow:
    """The spectral part of a shadow; without one, or with a policy alone, it has no reference."""

    def __init__(self, shadow: ShadowSettings, live: Bundle) -> None:
        """Raises BundleError: bundle or policy cannot be used, or the bundle has no reference."""
        self.rules = Shadow.load(shadow, live)
        self._analyser: SpectralAnalyser | None = None
        self._model = ""
        if self.rules is not None and self.rules.own_pixels:
            entry = self.rules.bundle.manifest.spectral
            if entry is None:
                raise BundleError(f"shadow.bundle: {self.rules.bundle.directory}: has no spectral reference")
            self._model = f"spectral/{entry.file}"

    def open(self) -> None:
        """Load the reference, in the process that uses it."""
        if self._model and self.rules is not None:
            self._analyser = SpectralAnalyser(self.rules.bundle.path(self._model.removeprefix("spectral/")))

    def close(self) -> None:
        """Free it."""
        self._analyser = None

    def trail(self, before: ShadowTrail | None, image: DecodedImage) -> ShadowTrail | None:
        """With its score of the image; None for what is not compared."""
        if self.rules is None:
            return None
        return self.rules.measured(before, StageName.SPECTRAL, lambda: self._score(image))

    def _score(self, image: DecodedImage) -> StageScore:
        assert self._analyser is not None and self.rules is not None  # noqa: S101, PT018 - open() made it
        found = self._analyser.analyse(image)
        return StageScore(
            stage=StageName.SPECTRAL,
            score=found.score,
            p_value=found.p_value,
            bundle_version=self.rules.bundle.version,
            model=self._model,
            note=(found.not_applicable or found.stratum)[:128],
        )
