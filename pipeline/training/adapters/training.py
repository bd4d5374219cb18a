"""Trains one adapter on a few photographs. Needs the `torch` extra and peft."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from pipeline.training.adapters.kinds import AdapterType, Trained, inject, strip, weights_of
from pipeline.training.adapters.model import LatentDiffusion
from pipeline.training.adapters.quantise import four_bit
from pipeline.training.backbone import required

torch: Any = required("torch")

_NAME = "learned"


def train_adapter(
    model: LatentDiffusion,
    latents: Any,
    prompt_ids: Sequence[int],
    kind: AdapterType,
    rank: int,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> Trained:
    """An adapter fitted to latents (N, C, H, W) with one prompt each; the model is left as it was.

    Only the adapter learns. With a 4-bit base it learns on the rounded weights, as QLoRA does.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    with four_bit(model.denoiser) if kind is AdapterType.LORA_4BIT else nullcontext():
        inject(model.denoiser, kind, rank, _NAME)
        parameters = [value for value in model.denoiser.parameters() if value.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
        model.denoiser.train()
        try:
            for _ in range(steps):
                chosen = random.integers(len(latents), size=batch)
                error = model.loss(latents[chosen], [prompt_ids[number] for number in chosen], noise)
                optimiser.zero_grad(set_to_none=True)
                error.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
            return Trained(kind, rank, weights_of(model.denoiser, _NAME))
        finally:
            model.denoiser.eval()
            strip(model.denoiser)
