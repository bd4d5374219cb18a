"""Token choice for a batch whose rows differ in grammar, temperature and length. Needs the `torch` extra."""

from __future__ import annotations

import codecs
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import torch

from pipeline.detection.mllm.backends.grammar import Grammars
from pipeline.detection.mllm.chat import Token

TOP_TOKENS = 20
"""Alternatives recorded at each place, as many as the OpenAI interface allows."""


class Ending(Enum):
    """Why a row stopped."""

    STOP = auto()
    LENGTH = auto()
    DEADLINE = auto()
    CLOSED = auto()
    NO_TOKEN = auto()
    NOT_FINITE = auto()


@dataclass(slots=True)
class Row:
    """One generation. `deadline` is a time of `time.monotonic`; `matcher` the state of its grammar, if it has one."""

    max_tokens: int
    temperature: float
    seed: int
    deadline: float
    matcher: Any = None
    generator: Any = None
    ending: Ending | None = None
    steps: list[tuple[int, float, list[tuple[int, float]]]] = field(default_factory=list)
    """Chosen token, its log probability, and the likeliest tokens with theirs."""


class Chooser:
    """Both the logits processor and the stopping criterion of one call of `generate`, which must be greedy.

    The log probabilities are those of the distribution that is drawn from at temperature 1: after the grammar's mask.
    A row's choice depends on its own seed only, not on its neighbours: the choice is the argmax of
    `logits / temperature + Gumbel noise` from the row's own generator, which is a draw from the softmax
    (Gumbel-max trick: Maddison, Tarlow and Minka, "A* Sampling", NeurIPS 2014, section 2).

    Args:
        rows: one for each of the batch.
        grammars: of this model.
        banned: bool (V,); tokens that are never chosen.
        stop_ids: tokens that end a row.
        closing: true once nobody waits for the answers any more.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        grammars: Grammars,
        banned: torch.Tensor,
        stop_ids: Sequence[int],
        closing: Callable[[], bool],
    ) -> None:
        self._rows = rows
        self._grammars = grammars
        self._banned = banned
        self._stop_ids = frozenset(stop_ids)
        self._closing = closing

    def choose(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The logits processor: everything but each row's choice becomes -inf. `scores`: float (B, V)."""
        logits = scores.float().masked_fill(self._banned, -math.inf)
        live = [index for index, row in enumerate(self._rows) if row.ending is None]
        masked = {i: self._rows[i].matcher for i in live if self._rows[i].matcher is not None}
        self._grammars.mask(logits, masked)
        logprobs = torch.log_softmax(logits, dim=-1)
        chosen = self._with_noise(logits, live).argmax(dim=-1)
        top = logprobs.topk(min(TOP_TOKENS, logprobs.shape[-1]), dim=-1)
        best = logits.amax(dim=-1).tolist()
        own = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
        ids, top_ids, top_values = chosen.tolist(), top.indices.tolist(), top.values.tolist()
        for i in live:
            if math.isfinite(best[i]):
                self._take(self._rows[i], ids[i], own[i], list(zip(top_ids[i], top_values[i], strict=True)))
            else:
                self._rows[i].ending = Ending.NO_TOKEN if best[i] == -math.inf else Ending.NOT_FINITE
        return torch.full_like(logits, -math.inf).scatter_(1, chosen[:, None], 0.0)

    def finished(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        """The stopping criterion: bool (B,)."""
        now, closing = time.monotonic(), self._closing()
        for row in self._rows:
            if row.ending is None and closing:
                row.ending = Ending.CLOSED
            elif row.ending is None and now > row.deadline:
                row.ending = Ending.DEADLINE
        return torch.tensor([row.ending is not None for row in self._rows], device=input_ids.device)

    def _with_noise(self, logits: torch.Tensor, live: Sequence[int]) -> torch.Tensor:
        warm = [i for i in live if self._rows[i].temperature > 0.0]
        if not warm:
            return logits
        noisy = logits.clone()
        for i in warm:
            row = self._rows[i]
            if row.generator is None:
                row.generator = torch.Generator(logits.device).manual_seed(row.seed)
            waiting = torch.empty_like(logits[i]).exponential_(generator=row.generator)
            noisy[i] = logits[i] / row.temperature - waiting.log()
        return noisy

    def _take(self, row: Row, token: int, logprob: float, top: list[tuple[int, float]]) -> None:
        row.steps.append((token, logprob, [(i, value) for i, value in top if value > -math.inf]))
        if row.matcher is not None:
            row.matcher.accept_token(token)
        if token in self._stop_ids:
            row.ending = Ending.STOP
        elif len(row.steps) >= row.max_tokens:
            row.ending = Ending.LENGTH


def written_tokens(row: Row, token_bytes: Sequence[bytes], stop_ids: Sequence[int]) -> tuple[Token, ...]:
    """The row's tokens without the one that ended it; their texts joined are the answer's text.

    A token that ends within a character has the characters completed so far, perhaps none. Alternatives that read
    the same are added up.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    steps = [step for step in row.steps if step[0] not in stop_ids]
    tokens = []
    for index, (token, logprob, top) in enumerate(steps):
        text = decoder.decode(token_bytes[token], final=index == len(steps) - 1)
        alternatives = {text: logprob}
        for other, value in top:
            if other != token:
                read = token_bytes[other].decode("utf-8", "replace")
                alternatives[read] = _log_sum(alternatives[read], value) if read in alternatives else value
        tokens.append(Token(text, logprob, alternatives))
    return tuple(tokens)


def _log_sum(first: float, second: float) -> float:
    """log(exp(first) + exp(second)), of log probabilities: at most 0."""
    high, low = max(first, second), min(first, second)
    return min(0.0, high + math.log1p(math.exp(low - high)))
