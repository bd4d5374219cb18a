"""JSON Schema as a mask over a model's tokens, by xgrammar. Needs the `torch` extra."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import torch
import xgrammar

_COMPILE_THREADS = 1  # a schema is compiled once for the life of the process
_SEPARATORS = (", ", ": ")
_FIRST_PRINTABLE = 0x20


class GrammarError(Exception):
    """The grammar back end cannot use this schema."""


class Grammars:
    """The grammars of one model's vocabulary, each compiled once. Thread-safe.

    Args:
        tokenizer: of transformers.
        vocabulary: rows of the model's output layer, which may be more than the tokenizer has tokens.
        stop_ids: tokens that end an answer.
        device: of the scores that are masked.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, stop_ids: Sequence[int], device: torch.device) -> None:
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary, stop_token_ids=list(stop_ids))
        self.token_bytes: list[bytes] = info.decoded_vocab
        # xgrammar 0.2.8 lets a string of bounded length hold control characters as they are (its issue 800), which
        # JSON forbids (RFC 8259, section 7). The grammars here need none outside strings either.
        self._unwritable = torch.tensor(
            [any(b < _FIRST_PRINTABLE for b in text) for text in self.token_bytes], device=device
        )
        self._vocabulary = vocabulary
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=_COMPILE_THREADS)
        self._compiled: dict[bytes, Any] = {}
        self._lock = threading.Lock()

    def compiled(self, schema: Mapping[str, Any]) -> Any:
        """The grammar of `schema`: properties in their order, on one line, a space after each comma and colon.

        Free white space would be legal, and a place where a model can loop without end.

        Raises:
            GrammarError: the schema has what xgrammar does not know.
        """
        key = orjson.dumps(schema)
        with self._lock:
            if key not in self._compiled:
                try:
                    self._compiled[key] = self._compiler.compile_json_schema(
                        key.decode(), any_whitespace=False, separators=_SEPARATORS, strict_mode=True
                    )
                except (RuntimeError, ValueError) as error:
                    raise GrammarError(f"schema: {error}") from error
            return self._compiled[key]

    def matcher(self, schema: Mapping[str, Any], prefill: str = "") -> Any:
        """A fresh state for one generation, `prefill` already read.

        Raises:
            GrammarError: see `compiled`; or no answer of this schema begins with `prefill`.
        """
        matcher = xgrammar.GrammarMatcher(self.compiled(schema))
        if prefill and not matcher.accept_string(prefill):
            raise GrammarError("prefill: no answer of this schema begins with it")
        return matcher

    def mask(self, scores: torch.Tensor, matchers: Mapping[int, Any]) -> None:
        """Set to -inf, in place, what the grammar of a row does not allow next.

        Args:
            scores: float32 (B, V), contiguous.
            matchers: row -> state; the other rows are left as they are.
        """
        if not matchers:
            return
        bitmask = xgrammar.allocate_token_bitmask(scores.shape[0], self._vocabulary)
        for row, matcher in matchers.items():
            matcher.fill_next_token_bitmask(bitmask, row)
        rows = list(matchers)
        xgrammar.apply_token_bitmask_inplace(scores, bitmask.to(scores.device), indices=rows)
        scores[rows] = scores[rows].masked_fill(self._unwritable, -math.inf)
