"""4-bit base weights on any device: NF4 quantise-dequantise of the weights, computed in full precision.

The values are those that an NF4 kernel dequantises to before it multiplies (block-wise absolute maximum, no double
quantisation), so images show what a 4-bit base does to them; the memory that such kernels save is not saved here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.training.backbone import required

torch: Any = required("torch")

NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""NormalFloat4 (Dettmers et al. 2023, appendix E)."""

BLOCK = 64


def nf4(weights: Any) -> Any:
    """Weights rounded to NF4 in blocks of 64 along the flattened tensor; shape and dtype stay.

    A last block that is not full is scaled by its own maximum.
    """
    flat = weights.detach().float().flatten()
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)
    scale = padded.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    levels = torch.tensor(NF4_LEVELS, device=flat.device)
    between = (levels[1:] + levels[:-1]) / 2
    rounded = levels[torch.bucketize(padded / scale, between)] * scale
    return rounded.flatten()[: flat.numel()].view(weights.shape).to(weights.dtype)


@contextmanager
def four_bit(net: Any) -> Iterator[None]:
    """Linear layers of `net` hold NF4 weights inside the block; the old weights come back after it."""
    linear = [module for module in net.modules() if isinstance(module, torch.nn.Linear)]
    kept = [module.weight.data for module in linear]
    for module in linear:
        module.weight.data = nf4(module.weight.data)
    try:
        yield
    finally:
        for module, weights in zip(linear, kept, strict=True):
            module.weight.data = weights
