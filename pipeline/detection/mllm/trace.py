"""The audit record of one verification: what was asked, what came back, and of what model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.detection.mllm.chat import Capabilities, FinishReason
from pipeline.detection.mllm.verdict import Opinion
from schemas.forensics import ForensicReport

TRACE_VERSION = "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentImage:
    """A picture as it was sent: its part in the dialogue, the digest of its PNG, and its box in the original.

    `box`: left, top, width, height in pixels of the original; None for the panel.
    """

    role: str
    sha256: str
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    `name`: reason, report or retry. `question`: the text that was added for it. `raw_text`: the answer as it came,
    without the prefill. `finish`: None when the answer failed. `fault`: why the answer was not accepted, or empty.
    """

    name: str
    question: str
    raw_text: str
    latency_s: float
    finish: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    fault: str = ""

    @property
    def sha256(self) -> str:
        """Digest of the raw answer, under which the evidence store keeps it."""
        return hashlib.sha256(self.raw_bytes).hexdigest()

    @property
    def raw_bytes(self) -> bytes:
        """The raw answer as UTF-8; a lone surrogate, which a server may send escaped, becomes `?`."""
        return self.raw_text.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Everything by which a verdict can be questioned later.

    `prompts`: file -> sha256 of the prompt texts. `dialogue_sha256`: one digest of all that was the same for every
    image, see `dialogue.dialogue_sha256`.
    """

    model: str
    backend: str
    capabilities: Capabilities | None
    prompts: dict[str, str]
    dialogue_sha256: str
    passes: int
    prefill: str
    images: tuple[SentImage, ...] = ()
    turns: tuple[Turn, ...] = ()
    report: ForensicReport | None = None
    opinion: Opinion | None = None
    failure: str = ""
    detail: str = ""

    def manifest(self, raw_uris: Sequence[str] = ()) -> dict[str, Any]:
        """As JSON values. Raw answers stand in it by digest, and by the URIs given in the order of `turns`."""
        uris: Sequence[str | None] = raw_uris or [None] * len(self.turns)
        return {
            "trace_version": TRACE_VERSION,
            "model": self.model,
            "backend": self.backend,
            "capabilities": asdict(self.capabilities) if self.capabilities else None,
            "prompts": self.prompts,
            "dialogue_sha256": self.dialogue_sha256,
            "passes": self.passes,
            "prefill": self.prefill,
            "images": [asdict(image) for image in self.images],
            "turns": [_turn(turn, uri) for turn, uri in zip(self.turns, uris, strict=True)],
            "report": self.report.model_dump(mode="json") if self.report else None,
            "opinion": _opinion(self.opinion) if self.opinion else None,
            "failure": self.failure or None,
            "detail": self.detail,
        }

    def in_full(self) -> dict[str, Any]:
        """The manifest with the raw answers in it, for one who reads it at once."""
        manifest = self.manifest()
        for turn, entry in zip(self.turns, manifest["turns"], strict=True):
            entry["raw_text"] = turn.raw_text
        return manifest


def _turn(turn: Turn, uri: str | None) -> dict[str, Any]:
    return {
        "name": turn.name,
        "question": turn.question,
        "raw_sha256": turn.sha256,
        "raw_uri": uri,
        "finish": turn.finish,
        "prompt_tokens": turn.prompt_tokens,
        "completion_tokens": turn.completion_tokens,
        "latency_s": round(turn.latency_s, 4),
        "fault": turn.fault or None,
    }


def _opinion(opinion: Opinion) -> dict[str, Any]:
    return {
        "probability": opinion.probability,
        "raw": opinion.raw,
        "basis": opinion.basis.value,
        "calibrated": opinion.calibrated,
        "shares": {hypothesis.value: share for hypothesis, share in opinion.shares.items()},
        "coverage": opinion.coverage,
        "logprobs": dict(opinion.logprobs),
    }
