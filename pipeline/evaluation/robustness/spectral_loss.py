"""A differentiable distance between spectra: what an adversary fine-tunes a decoder against."""

from __future__ import annotations

import importlib
from typing import Any

BINS = 64
GRID = 16
_LUMA_BT601 = (0.299, 0.587, 0.114)
_FLOOR = 1e-8


def spectral_loss(decoded: Any, real: Any) -> Any:
    """How far the spectra of decoded images are from those of the photographs that they reconstruct.

    The mean absolute difference of the log radial power profiles (64 annuli), plus how much higher the log power at
    the harmonics of 16 px stands above its 5 x 5 neighbourhood than it does in the photograph. Zero for equal images;
    add it, weighted, to the reconstruction loss of a decoder.

    Args:
        decoded: torch float tensor (N, 3, H, W) in 0..1, at least 64 px a side; gradients flow through it.
        real: the same shape.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: shapes differ or are too small.
    """
    torch = importlib.import_module("torch")
    if decoded.shape != real.shape or decoded.ndim != 4 or min(decoded.shape[2:]) < 64:
        raise ValueError(f"expected two (N, 3, H, W) of at least 64 px, got {decoded.shape} and {real.shape}")
    made, kept = _log_power(torch, decoded), _log_power(torch, real)
    profile = (_radial(torch, made) - _radial(torch, kept)).abs().mean()
    peaks = torch.relu(_peaks(torch, made) - _peaks(torch, kept)).mean()
    return profile + peaks


def _log_power(torch: Any, images: Any) -> Any:
    """Log power of the luma's Hann-windowed spectrum, (N, H, W/2 + 1)."""
    weights = torch.tensor(_LUMA_BT601, dtype=images.dtype, device=images.device)
    luma = (images * weights[None, :, None, None]).sum(dim=1)
    luma = luma - luma.mean(dim=(1, 2), keepdim=True)
    rows, columns = (torch.hann_window(side, dtype=images.dtype, device=images.device) for side in luma.shape[1:])
    power = torch.fft.rfft2(luma * rows[:, None] * columns[None, :]).abs().square()
    return torch.log(power / (luma.shape[1] * luma.shape[2]) + _FLOOR)


def _radial(torch: Any, log_power: Any) -> Any:
    """Mean by annulus of 1/128 cycles/px, (N, 64)."""
    height, half = log_power.shape[1:]
    fy = torch.fft.fftfreq(height, device=log_power.device)[:, None]
    fx = torch.fft.rfftfreq(2 * (half - 1), device=log_power.device)[None, :]
    index = (torch.hypot(fy, fx) * 2 * BINS).long().clamp(max=BINS).flatten()
    ones = torch.ones_like(index, dtype=log_power.dtype)
    counts = torch.zeros(BINS + 1, dtype=log_power.dtype, device=log_power.device).index_add(0, index, ones)
    sums = torch.zeros(log_power.shape[0], BINS + 1, dtype=log_power.dtype, device=log_power.device)
    sums = sums.index_add(1, index, log_power.flatten(1))
    return (sums / counts.clamp(min=1))[:, :BINS]


def _peaks(torch: Any, log_power: Any) -> Any:
    """Log power at the inner harmonics of 16 px less the mean of their 5 x 5 neighbourhood, (N, P)."""
    height, half = log_power.shape[1:]
    mean = torch.nn.functional.avg_pool2d(log_power[:, None], 5, stride=1, padding=2, count_include_pad=False)[:, 0]
    rows = torch.tensor([round(m * height / GRID) for m in range(1, GRID)], device=log_power.device)
    columns = torch.tensor([round(n * 2 * (half - 1) / GRID) for n in range(1, GRID // 2)], device=log_power.device)
    excess = log_power - mean
    return excess[:, rows][:, :, columns].flatten(1)
