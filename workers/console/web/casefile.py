"""What the case page tells of a decision's grounds: scores, reasons, features, and the dialogue with the MLLM.

It reads the small pieces of evidence alone; image and panel are asked for by the browser, each for itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.detection.policy import Policy
from schemas.decision import Decision, Risk
from workers.console.web.citations import Citation, Piece, citations, pieces
from workers.console.web.peaks import Peak, peaks
from workers.explain.evidence import MANIFEST, ORIGINAL, PANEL, EvidenceReader, Pieces
from workers.explain.gauges import derive, final_gauges, stage_stories
from workers.explain.spectrum import contradictions, spectrum_story
from workers.explain.story import AnswerStory, FeatureStory, Gauge, Held, MllmStory, ReasonStory, StageStory
from workers.explain.trace import KIND, mllm_story
from workers.explain.words import headline, reason_stories, stage_name


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the model, and its text cut where it names a feature."""

    told: AnswerStory
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class CaseFile:
    """For one page. `no_image` and `no_panel`: why there is nothing to ask for, or empty."""

    headline: str
    stages: tuple[StageStory, ...]
    final: tuple[Gauge, ...]
    reasons: tuple[ReasonStory, ...]
    spectrum: FeatureStory
    peaks: tuple[Peak, ...]
    mllm: MllmStory
    citations: tuple[Citation, ...]
    answers: tuple[Answer, ...]
    no_image: str
    no_panel: str
    warnings: tuple[str, ...]

    @property
    def image_citations(self) -> tuple[Citation, ...]:
        """Those with a place on the image."""
        return tuple(c for c in self.citations if c.box is not None)

    @property
    def panel_citations(self) -> tuple[Citation, ...]:
        """Those with a place on the panel."""
        return tuple(c for c in self.citations if c.path is not None)


class CaseFiles:
    """Reads pieces side by side: in an object store each takes a round trip of its own."""

    def __init__(self, reader: EvidenceReader, policy: Policy | None, threads: int = 8) -> None:
        """`policy`: of the installed bundle, for numbers that a decision leaves out."""
        self.reader = reader
        self._policy = policy
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="evidence")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def of(self, decision: Decision) -> CaseFile:
        """Everything that can be had; what cannot is said in it, never raised."""
        read = self._read(decision)
        manifest, trace = read.of_kind(MANIFEST), read.of_kind(KIND)
        spectrum = spectrum_story(decision, manifest)
        found = peaks(spectrum.features)
        derived = derive(decision, spectrum.stratum, self._policy)
        mllm = mllm_story(decision, trace.story if trace else None, trace.data if trace else None, read.text_of)
        return CaseFile(
            headline=headline(decision),
            stages=stage_stories(decision, derived),
            final=final_gauges(decision, derived),
            reasons=reason_stories(decision),
            spectrum=spectrum,
            peaks=found,
            mllm=mllm,
            citations=citations(mllm.report, found),
            answers=tuple(Answer(told, pieces(told.text or "", found)) for told in mllm.answers),
            no_image=_no_image(decision),
            no_panel=_no_panel(decision),
            warnings=(*contradictions(decision, manifest), *_differing(read)),
        )

    def image(self, decision: Decision) -> tuple[bytes | None, str]:
        """The original bytes, verified, or None and a sentence that says why not."""
        piece = self.reader.original(decision)
        return piece.data, piece.story.said

    def panel(self, decision: Decision) -> tuple[bytes | None, str]:
        """The panel's bytes, verified, or None and a sentence that says why not."""
        named = [ref for ref in decision.evidence if ref.kind == PANEL]
        if not named:
            return None, _no_panel(decision)
        piece = self.reader.named(named[-1])
        return piece.data, piece.story.said

    def _read(self, decision: Decision) -> Pieces:
        wanted = [ref for ref in decision.evidence if ref.kind not in (ORIGINAL, PANEL)]
        return Pieces(tuple(self._pool.map(self.reader.named, wanted)))


def _no_image(decision: Decision) -> str:
    if decision.risk is Risk.RELEASED:
        return "No image was kept: the classifier let it pass."
    if decision.facts is None and not any(ref.kind == ORIGINAL for ref in decision.evidence):
        return "There is no image: the bytes were never obtained."
    return ""


def _no_panel(decision: Decision) -> str:
    if any(ref.kind == PANEL for ref in decision.evidence):
        return ""
    if decision.risk is Risk.LOW_RISK:
        return "No panel was kept: the second stage passed the image."
    return f"There is no panel: the {stage_name(decision.stage_exited)} stage decided before one was made."


def _differing(read: Pieces) -> Iterable[str]:
    for piece in read.all:
        if piece.story.held is Held.DIGEST_DIFFERS:
            yield f"{piece.story.kind.replace('_', ' ')}: {piece.story.said}"
