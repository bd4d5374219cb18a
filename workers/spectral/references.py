"""Which references a batch is scored by: the bundle's own, or published ones that the worker has on its disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.detection.spectral.analyser import SpectralAnalyser, SpectralAnalysis
from pipeline.detection.spectral.reference import SpectralReferenceError
from schemas.media import CandidateScore


@dataclass(frozen=True, slots=True)
class ReferenceFile:
    """A published reference: its content hash, and a file that was checked to hold it."""

    version: str
    path: Path

    @property
    def model(self) -> str:
        """How decisions name it."""
        return f"spectral/reference-{self.version}"


@dataclass(frozen=True, slots=True)
class References:
    """What decides, and what only watches. `active` None: the bundle's own; `candidate` None: nobody watches."""

    active: ReferenceFile | None = None
    candidate: ReferenceFile | None = None


@dataclass(frozen=True, slots=True)
class NamedAnalyser:
    """An analyser with the name of its reference in decisions."""

    analyser: SpectralAnalyser
    model: str

    @classmethod
    def of(cls, file: ReferenceFile) -> NamedAnalyser:
        """Raises SpectralReferenceError when the file no longer holds what it held."""
        analyser = SpectralAnalyser(file.path)
        if analyser.reference_hash != file.version:
            raise SpectralReferenceError(f"{file.path}: holds another reference than {file.version}; start anew")
        return cls(analyser, file.model)

    def score(self, analysis: SpectralAnalysis) -> CandidateScore:
        """What it makes of another analyser's measurement."""
        return CandidateScore(score=self.analyser.score_of(analysis), model=self.model)
