"""Adapter types of the bench, and how they go into a denoiser and out of it again. Needs the `torch` extra and peft."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.training.backbone import required

torch: Any = required("torch")

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""Linear layers of attention and feed-forward blocks, by diffusers' names; what LoRA trainers adapt."""

STACK_SCALES = (1.0, 0.6)
"""Of the first and the second adapter of a stack; unequal, so that their order matters."""


class AdapterType(StrEnum):
    """One column of the sweep; the values name directories."""

    LORA = "lora"
    DORA = "dora"
    LOKR = "lokr"
    LORA_4BIT = "lora_4bit_base"
    STACKED = "stacked_lora"
    SWITCHED = "switched_lora"

    @property
    def trained_as(self) -> AdapterType:
        """The type whose trained adapters this one uses: stacks and switches combine plain LoRA adapters."""
        return AdapterType.LORA if self in {AdapterType.STACKED, AdapterType.SWITCHED} else self

    @property
    def parts(self) -> int:
        """How many trained adapters make one."""
        return 2 if self in {AdapterType.STACKED, AdapterType.SWITCHED} else 1


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained adapter: its weights by name, and what made them."""

    kind: AdapterType
    rank: int
    weights: Mapping[str, Any]


def alpha_of(rank: int) -> int:
    """Scaling numerator. Equal to the rank, so that the update's scale does not shrink as the rank grows."""
    return rank


def inject(denoiser: Any, kind: AdapterType, rank: int, name: str) -> None:
    """Put an untrained adapter, a no-op at first, into the denoiser's attention and feed-forward layers."""
    peft = required("peft")
    config = (
        peft.LoKrConfig(r=rank, alpha=alpha_of(rank), target_modules=list(TARGETS))
        if kind is AdapterType.LOKR
        else peft.LoraConfig(
            r=rank, lora_alpha=alpha_of(rank), target_modules=list(TARGETS), use_dora=kind is AdapterType.DORA
        )
    )
    with warnings.catch_warnings():
        # Several adapters at once are what stacks and switches are made of.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        peft.inject_adapter_in_model(config, denoiser, adapter_name=name)


def insert(denoiser: Any, trained: Trained, name: str) -> None:
    """Put a trained adapter in.

    Raises:
        ValueError: weights that do not fit this denoiser.
    """
    inject(denoiser, trained.kind, trained.rank, name)
    outcome = required("peft").set_peft_model_state_dict(denoiser, dict(trained.weights), adapter_name=name)
    wanted = set(weights_of(denoiser, name))
    if outcome.unexpected_keys or wanted != set(trained.weights):
        raise ValueError(
            f"adapter {name}: its {len(trained.weights)} tensors do not fit the {len(wanted)} of this base"
        )


def weights_of(denoiser: Any, name: str) -> dict[str, Any]:
    """Tensors of one adapter, copied to the CPU."""
    state = required("peft").get_peft_model_state_dict(denoiser, adapter_name=name)
    return {key: value.detach().cpu().clone() for key, value in state.items()}


def activate(denoiser: Any, names: Sequence[str], scales: Sequence[float]) -> None:
    """Only these adapters act, each at its scale."""
    for layer in _adapted(denoiser).values():
        layer.set_adapter(list(names), inference_mode=True)
        for name, scale in zip(names, scales, strict=True):
            layer.set_scale(name, scale)


def strip(denoiser: Any) -> None:
    """Take all adapters out; the denoiser is the base model again, its weights untouched."""
    for path, layer in _adapted(denoiser).items():
        parent, _, child = path.rpartition(".")
        setattr(denoiser.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(denoiser, "peft_config"):
        del denoiser.peft_config


def _adapted(denoiser: Any) -> dict[str, Any]:
    layer_type = required("peft.tuners.tuners_utils").BaseTunerLayer
    return {path: module for path, module in denoiser.named_modules() if isinstance(module, layer_type)}
