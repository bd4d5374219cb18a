"""Chat turns as a model's input tensors, one request at a time and then many in a batch. Needs the `torch` extra."""

from __future__ import annotations

import io
import threading
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from pipeline.detection.mllm.chat import ChatRequest, Message


@dataclass(frozen=True, slots=True)
class Encoded:
    """One request: `sequences` are (1, L) integers beside `input_ids`; `pictures` are stacked along the first axis."""

    sequences: dict[str, torch.Tensor]
    pictures: dict[str, torch.Tensor]

    @property
    def length(self) -> int:
        """Tokens of the prompt, those of the pictures included."""
        return int(self.sequences["input_ids"].shape[1])

    @property
    def kind(self) -> Hashable:
        """Requests of one kind can be stacked."""
        return (
            tuple(sorted(self.sequences)),
            tuple((name, tuple(t.shape[1:]), t.dtype) for name, t in sorted(self.pictures.items())),
        )


class Encoder:
    """A processor of transformers with its chat template. Thread-safe.

    Args:
        processor: as `AutoProcessor` loads it.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._lock = threading.Lock()  # a Rust tokenizer used by two threads raises "Already borrowed"
        self._control = control_tokens(processor.tokenizer)

    def encode(self, request: ChatRequest) -> Encoded:
        """Render, tokenize, and turn pictures into patches.

        Raises:
            OSError, RuntimeError, TypeError, ValueError: the processor or its template does not take this.
        """
        turns = [self._turn(message) for message in request.messages]
        if request.prefill:
            turns.append(self._turn(Message("assistant", request.prefill)))
        with self._lock:
            found = self._processor.apply_chat_template(
                turns,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=not request.prefill,
                continue_final_message=bool(request.prefill),
            )
        shape = found["input_ids"].shape
        tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
        sequences = {n: t for n, t in tensors.items() if t.shape == shape and not t.is_floating_point()}
        return Encoded(sequences, {n: t for n, t in tensors.items() if n not in sequences})

    def _turn(self, message: Message) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": inert(message.text, self._control)}]
        pictures = (Image.open(io.BytesIO(png)).convert("RGB") for png in message.images)
        content += [{"type": "image", "image": picture} for picture in pictures]
        return {"role": message.role, "content": content}


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts that the tokenizer reads as commands, such as the end of a turn, the longest first."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens), key=lambda text: (-len(text), text)))


def inert(text: str, control: Iterable[str]) -> str:
    """`text` with a space inside each control token.

    What the model wrote in the first pass is quoted in the second, and it may have copied from the picture a text
    that would end its turn and begin one of the user's.
    """
    for token in control:
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def stacked(batch: Sequence[Encoded], pad_id: int) -> dict[str, torch.Tensor]:
    """One batch of requests of one kind, padded on the left so that all answers begin at the same place."""
    longest = max(encoded.length for encoded in batch)
    tensors = {}
    for name in batch[0].sequences:
        fill = pad_id if name == "input_ids" else 0
        rows = [torch.nn.functional.pad(e.sequences[name], (longest - e.length, 0), value=fill) for e in batch]
        tensors[name] = torch.cat(rows)
    for name in batch[0].pictures:
        tensors[name] = torch.cat([encoded.pictures[name] for encoded in batch])
    return tensors
