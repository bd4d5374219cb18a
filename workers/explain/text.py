"""The story for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from schemas.decision import Outcome
from workers.explain.story import EvidenceStory, Gauge, Held, MllmStory, Proved, Side, Story, Verdict
from workers.explain.times import milliseconds, moment, size
from workers.explain.visible import on_one_line, visible
from workers.explain.words import outcome_words, stage_name

OUTCOME_STYLE = {Outcome.BLOCK: "bold red", Outcome.ESCALATE: "yellow", Outcome.PASS: "green"}
_HELD_STYLE = {
    Held.VERIFIED: "green",
    Held.MISSING: "yellow",
    Held.ERASED: "yellow",
    Held.DIGEST_DIFFERS: "bold red",
    Held.UNREADABLE: "yellow",
    Held.NOT_KEPT: "dim",
}
_PROOF_STYLE = {Proved.VERIFIED: "green", Proved.FAILED: "bold red", Proved.ABSENT: "yellow"}
_SIDE_TITLE = {
    Side.OUTCOME: "why",
    Side.AGAINST_BLOCK: "not blocked",
    Side.AGAINST_PASS: "not passed",
    Side.ORDER: "review",
}
_BAR_CELLS = 40


def print_story(story: Story, console: Console) -> None:
    """Everything, top down: what was decided, why, on what, and who vouches for it."""
    _line(console, story.headline, OUTCOME_STYLE[story.outcome])
    if story.later:
        _line(console, story.later, "bold")
    if not story.holds:
        _line(console, "A digest or the proof does not hold: do not rely on what follows.", "bold red")
    _facts(console, "decision", story.decision_uid, moment(story.decided_at), outcome_words(story.outcome, story.risk))
    _facts(console, "read from", story.source)
    if story.verdict is not None:
        _print_verdict(story.verdict, console)
    _heading(console, "spectral features")
    _print_features(story, console)
    _heading(console, "model dialogue")
    _print_mllm(story.mllm, console)
    _heading(console, "evidence")
    for piece in story.evidence:
        _print_piece(piece, console)
    _heading(console, "events, reviews, erasures")
    _print_afterwards(story, console)
    _heading(console, "audit proof")
    _print_proof(story, console)
    for note in story.notes:
        _line(console, f"note: {note}", "dim")


def _print_verdict(verdict: Verdict, console: Console) -> None:
    admission = verdict.admission
    _heading(console, "submitted")
    source = f"source {admission.source}" if admission.source else "source not given"
    submitted = moment(admission.submitted_at) if admission.submitted_at else "time not given"
    _facts(console, "media", f"{admission.tenant}/{admission.media_id}", f"priority {admission.priority.value}")
    _facts(console, "from", admission.uri)
    _facts(console, "by", source, f"submitted {submitted}", f"admitted {moment(admission.admitted_at)}")
    if admission.labels:
        _facts(console, "labels", *(f"{key}={value}" for key, value in sorted(admission.labels.items())))
    facts = verdict.facts
    if facts is None:
        _facts(console, "image", "not decoded")
    else:
        kind = f"{facts.format} {facts.width}x{facts.height} px", "lossless" if facts.lossless else "lossy"
        _facts(console, "image", *kind, size(facts.size_bytes), f"sha256 {facts.sha256}")
    _heading(console, f"stages ({verdict.mode.value} mode)")
    for stage in verdict.stages:
        _line(console, f"  {stage_name(stage.stage):<16} {stage.said}", "" if stage.asked else "dim")
        for gauge in stage.gauges:
            _print_gauge(gauge, console)
        if stage.asked:
            times = f"waited {milliseconds(stage.waited_ms)}", f"worked {milliseconds(stage.worked_ms)}"
            p_value = f"p-value {stage.p_value:.3g}" if stage.p_value is not None else ""
            _facts(console, "", *filter(None, (p_value, stage.model, *times)), style="dim")
    for gauge in verdict.final:
        _print_gauge(gauge, console)
    _heading(console, "reasons")
    for reason in verdict.reasons:
        words = reason.words if reason.side is Side.OUTCOME else ""
        _facts(console, _SIDE_TITLE[reason.side], words, reason.detail)
    _facts(
        console,
        "versions",
        f"bundle {admission.bundle_version}",
        f"policy {admission.policy_version}",
        f"mediasieve {verdict.product_version or 'not recorded'}",
    )


def _print_gauge(gauge: Gauge, console: Console) -> None:
    if gauge.value is None:
        _facts(console, gauge.label, "not known", gauge.note, style="dim")
        return
    cells = ["-"] * (_BAR_CELLS + 1)
    for mark in gauge.marks:
        cells[round(mark.value * _BAR_CELLS)] = "|"
    cells[round(gauge.value * _BAR_CELLS)] = "#"
    marks = ", ".join(f"{mark.name} {mark.value:g}" for mark in gauge.marks)
    _line(console, f"    {gauge.label:<28} 0 {''.join(cells)} 1  {gauge.value:.3f}  {marks}")


def _print_features(story: Story, console: Console) -> None:
    if story.spectrum.absent:
        _line(console, f"  {story.spectrum.absent}", "dim")
    if not story.spectrum.features:
        return
    table = Table("feature", Column("value", justify="right"), Column("percentile", justify="right"), box=None)
    for feature in story.spectrum.features:
        percentile = "-" if feature.percentile is None else f"{feature.percentile:.1f}"
        table.add_row(Text(on_one_line(feature.name)), f"{feature.value:.4g}", percentile)
    console.print(table)
    _line(console, f"  percentile among photographs of {story.spectrum.stratum}", "dim")


def _print_mllm(mllm: MllmStory, console: Console) -> None:
    if mllm.absent:
        _line(console, f"  {mllm.absent}", "dim")
        return
    _facts(console, "model", mllm.model, f"by {mllm.backend}", f"passes {mllm.passes}")
    _facts(console, "dialogue", f"sha256 {mllm.dialogue_sha256}")
    if mllm.basis is not None:
        probability = "none: undetermined" if mllm.probability is None else f"{mllm.probability:.4f}"
        calibrated = "calibrated" if mllm.calibrated else "not calibrated"
        _facts(console, "P(synthetic)", probability, f"from {mllm.basis}", calibrated)
    if mllm.shares:
        _facts(console, "tokens", *(f"{name} {share:.4f}" for name, share in mllm.shares.items()))
    if mllm.failure:
        _facts(console, "failed", mllm.failure, style="yellow")
    for answer in mllm.answers:
        tokens = f"{answer.prompt_tokens} + {answer.completion_tokens} tokens"
        fault = f"fault: {answer.fault}" if answer.fault else ""
        _line(console, f"  --- answer ({answer.name}): {tokens}, {answer.latency_s:.2f} s {fault}", "bold")
        if answer.text is None:
            _line(console, answer.said, "dim")
        else:
            _quote(console, answer.text)


def _print_piece(piece: EvidenceStory, console: Console) -> None:
    line = Text(f"  {piece.held.value.replace('_', ' '):<15}", style=_HELD_STYLE[piece.held])
    what = f"{piece.kind:<16} {piece.sha256 or '-'}  {size(piece.size_bytes)}"
    line.append(on_one_line(what), style="default")
    console.print(line, soft_wrap=True)
    if piece.held is not Held.VERIFIED:
        _line(console, f"                 {piece.said}", "dim")


def _print_afterwards(story: Story, console: Console) -> None:
    for event in story.events:
        outcome = outcome_words(event.outcome, event.risk)
        place = event.place or "place not known"
        _facts(console, f"event {event.sequence}", event.activity, moment(event.at), outcome, place, event.said)
    for review in story.reviews:
        _facts(console, "review", review.label.value, review.reviewer, moment(review.reviewed_at), review.rationale)
    for erasure in story.erasures:
        _facts(console, "erasure", erasure.cause, erasure.actor, moment(erasure.erased_at), erasure.detail)
    if not story.reviews:
        _line(console, "  no review is known here", "dim")
    for other in story.other_decisions:
        _facts(console, "see also", f"decision {other} on the same media id")


def _print_proof(story: Story, console: Console) -> None:
    proof = story.proof
    _line(console, f"  {proof.proved.value}: {proof.said}", _PROOF_STYLE[proof.proved])
    if proof.tree is not None:
        _facts(console, "tree", proof.tree)
    if proof.root is not None:
        _facts(console, "leaf", f"index {proof.leaf_index} of {proof.tree_size} leaves")
        _facts(console, "root", proof.root)
        _facts(console, "signature", proof.signature)


def _heading(console: Console, text: str) -> None:
    console.print(Text(text, style="bold"))


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(on_one_line(text), style=style), soft_wrap=True)


def _quote(console: Console, text: str) -> None:
    """A stranger's lines, each marked as such."""
    for line in visible(text).split("\n"):
        console.print(Text(f"  | {line}"), soft_wrap=True)


def _facts(console: Console, label: str, *parts: object, style: str = "") -> None:
    """`  label  part; part`, empty parts left out."""
    text = "; ".join(on_one_line(str(part)) for part in parts if part)
    console.print(Text(f"  {label:<16} {text}", style=style), soft_wrap=True)
