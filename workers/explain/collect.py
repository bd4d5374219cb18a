"""From the records of a decision and the evidence store to the story and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.detection.policy import Policy
from schemas.decision import Risk
from workers.explain.events import Event
from workers.explain.evidence import MANIFEST, ORIGINAL, PANEL, EvidenceReader, Pieces
from workers.explain.gauges import derive, final_gauges, stage_stories
from workers.explain.pictures import Picture, Pictures
from workers.explain.proof import Prover
from workers.explain.sources import Found, Sealed
from workers.explain.spectrum import contradictions, spectrum_story
from workers.explain.story import EventStory, FeatureStory, MllmStory, ReviewStory, Story, Verdict
from workers.explain.times import moment
from workers.explain.trace import KIND, mllm_story
from workers.explain.words import headline, later, outcome_words, reason_stories, stage_name

MakePicture = Callable[[bytes], tuple[Picture | None, str]]
_RECORD_GONE = "The record of this decision cannot be read, so what it named is not known."


@dataclass(frozen=True, slots=True)
class Explanation:
    """The story, and the pieces that its pictures are made of."""

    story: Story
    pieces: Pieces

    def pictures(self, make: MakePicture) -> Pictures:
        """Original and panel for a page."""
        original, absent_original = self._picture(ORIGINAL, make)
        panel, absent_panel = self._picture(PANEL, make)
        return Pictures(original, panel, absent_original, absent_panel)

    def _picture(self, kind: str, make: MakePicture) -> tuple[Picture | None, str]:
        piece = self.pieces.of_kind(kind)
        if piece is None:
            return None, _no_piece(self.story, kind)
        return (None, piece.story.said) if piece.data is None else make(piece.data)


def explain(found: Found, reader: EvidenceReader, prover: Prover, policy: Policy | None) -> Explanation:
    """Collect everything; what cannot be had is said in the story, never raised.

    Args:
        found: the decision's records.
        reader: of the evidence store.
        prover: of the audit log.
        policy: of the installed bundle, for numbers that the decision leaves out; used only if it is the version
            that decided.
    """
    pieces = reader.pieces(found)
    machine = found.machine
    spectrum, mllm = _findings(machine, pieces)
    return Explanation(
        Story(
            decision_uid=found.uid,
            tenant=found.tenant,
            headline=headline(machine.decision) if machine else _without_record(found.sealed),
            later=later(found.events),
            source=found.source,
            outcome=machine.decision.outcome if machine else found.sealed[0].pointer.outcome,
            risk=machine.decision.risk if machine else found.sealed[0].pointer.risk,
            decided_at=machine.decision.decided_at if machine else found.sealed[0].pointer.decided_at,
            verdict=_verdict(machine, spectrum, policy) if machine else None,
            spectrum=spectrum,
            mllm=mllm,
            evidence=tuple(piece.story for piece in pieces.all),
            events=(*map(_event, found.events), *map(_sealed_event, found.sealed)),
            reviews=tuple(
                ReviewStory(
                    review_id=str(r.review_id),
                    label=r.label,
                    reviewer=r.reviewer,
                    rationale=r.rationale,
                    reviewed_at=r.reviewed_at,
                )
                for r in found.reviews
            ),
            erasures=found.erasures,
            proof=prover.prove(found),
            other_decisions=found.other_decisions,
            notes=(*found.notes, *_contradictions(machine, pieces)),
        ),
        pieces,
    )


def _contradictions(machine: Event | None, pieces: Pieces) -> tuple[str, ...]:
    return tuple(contradictions(machine.decision, pieces.of_kind(MANIFEST))) if machine else ()


def _findings(machine: Event | None, pieces: Pieces) -> tuple[FeatureStory, MllmStory]:
    if machine is None:
        return FeatureStory(absent=_RECORD_GONE), MllmStory(absent=_RECORD_GONE)
    trace = pieces.of_kind(KIND)
    mllm = mllm_story(machine.decision, trace.story if trace else None, trace.data if trace else None, pieces.text_of)
    return spectrum_story(machine.decision, pieces.of_kind(MANIFEST)), mllm


def _verdict(machine: Event, spectrum: FeatureStory, policy: Policy | None) -> Verdict:
    decision = machine.decision
    derived = derive(decision, spectrum.stratum, policy)
    return Verdict(
        stage_exited=decision.stage_exited,
        final_score=decision.final_score,
        mode=decision.mode,
        admission=decision.admission,
        facts=decision.facts,
        thresholds=decision.thresholds,
        stages=stage_stories(decision, derived),
        final=final_gauges(decision, derived),
        reasons=reason_stories(decision),
        product_version=machine.product_version,
    )


def _event(event: Event) -> EventStory:
    decision = event.decision
    return EventStory(
        sequence=event.sequence,
        activity=event.activity,
        outcome=decision.outcome,
        risk=decision.risk,
        at=event.at,
        event_uid=event.uid,
        place=str(event.place) if event.place else None,
        sha256=event.sha256,
        said=event.message,
    )


def _sealed_event(sealed: Sealed) -> EventStory:
    pointer = sealed.pointer
    return EventStory(
        sequence=pointer.sequence,
        activity="not readable",
        outcome=pointer.outcome,
        risk=pointer.risk,
        at=pointer.decided_at,
        event_uid=None,
        place=str(sealed.place),
        sha256=pointer.record_sha256,
        said=sealed.said,
    )


def _without_record(sealed: tuple[Sealed, ...]) -> str:
    first = sealed[0]
    outcome = outcome_words(first.pointer.outcome, first.pointer.risk)
    return f"The outcome was {outcome}, decided on {moment(first.pointer.decided_at)}. {first.said}"


def _no_piece(story: Story, kind: str) -> str:
    if story.verdict is None:
        return _RECORD_GONE
    if kind == PANEL and story.risk is Risk.LOW_RISK:
        return "No panel was kept: the second stage passed the image."
    return f"The {stage_name(story.verdict.stage_exited)} stage decided before a panel was made."
