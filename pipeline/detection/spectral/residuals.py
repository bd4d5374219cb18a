"""What is left of the pixels without their smooth part: differences between neighbours, and their phases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.detection.spectral import kernel
from pipeline.detection.spectral.kernel import Float64, Pixels

PHASE_PERIODS = (2, 4, 8, 16)
_BLOCK_PX = 65_536
_FLOOR = 1e-6
_NPR_BLOCK = 8  # 2 x 2 px each


@dataclass(frozen=True, slots=True)
class Differences:
    """Of an area (H, W): means of its first differences and of its cross-difference, float64, and a spectrum.

    `across_x` (W - 1,) is the mean over rows of abs(x[i+1] - x[i]), `across_y` (H - 1,) that over columns;
    `cross_x`, `cross_y` are those means of the cross-difference and `cross_square` the mean of its square.
    `cross_power` is the cross-difference's power spectrum, folded into `kernel.folds` parts.
    """

    across_x: Float64
    across_y: Float64
    cross_x: Float64
    cross_y: Float64
    cross_square: float
    cross_power: Pixels


def differences(area: Pixels) -> Differences:
    """All of it in one go over blocks of rows, which stay in a core's own cache."""
    rows, columns = area.shape
    parts = (kernel.folds(rows), kernel.folds(columns))
    high = rows // parts[0]
    stacked = kernel.scratch("stacked", (high, columns), area.dtype)
    stacked.fill(0)
    across_x, across_y = np.zeros(columns - 1), np.empty(rows - 1)
    cross_x, cross_y = np.zeros(columns - 1), np.empty(rows - 1)
    squares = 0.0
    window = kernel.window(rows, columns, area.dtype.char)
    for top, stop in _blocks(rows, columns, high):
        below = min(stop, rows - 1)  # the last row has none below
        right, down, cross = _block_differences(area[top : below + 1], stop - top)
        across_x += _column_sums(right)
        across_y[top:below] = _row_sums(down)
        cross_x += _column_sums(cross)
        cross_y[top:below] = _row_sums(cross)
        squares += cv2.norm(cross, cv2.NORM_L2SQR)
        into = stacked[top % high : top % high + below - top, :-1]
        cv2.accumulateProduct(cross, window[top:below, :-1], into)
    return Differences(
        across_x / rows,
        across_y / columns,
        cross_x / (rows - 1),
        cross_y / (columns - 1),
        squares / ((rows - 1) * (columns - 1)),
        kernel.folded_power(kernel.folded_columns(stacked, parts[1]), (rows, columns), parts),
    )


def _column_sums(block: Pixels) -> Pixels:
    sums: Pixels = cv2.reduce(block, 0, cv2.REDUCE_SUM, dtype=-1)[0]
    return sums


def _row_sums(block: Pixels) -> Pixels:
    sums: Pixels = cv2.reduce(block, 1, cv2.REDUCE_SUM, dtype=-1)[:, 0]
    return sums


def _blocks(rows: int, columns: int, high: int) -> Iterator[tuple[int, int]]:
    """Rows from, to; about 64 Ki pixels each, none across the edge of a folded part.

    Their number is even, as that of all rows, so that no block is the last row alone, which has no differences.
    """
    size = max(2, _BLOCK_PX // columns // 2 * 2)
    for part in range(0, rows, high):
        for top in range(part, part + high, size):
            yield top, min(top + size, part + high)


def _block_differences(block: Pixels, rows: int) -> tuple[Pixels, Pixels, Pixels]:
    """Absolute first differences along x, of `rows` rows, and along y, and the cross-difference, in work arrays.

    Their rows are as far apart as those of whole arrays: numpy and OpenCV read and write aligned memory faster.
    """
    shape = (block.shape[0], block.shape[1])
    steps = kernel.scratch("steps", shape, block.dtype)[:, :-1]
    cross = kernel.scratch("cross", shape, block.dtype)[:-1, :-1]
    down = kernel.scratch("down", shape, block.dtype)[:-1]
    cv2.subtract(block[:, :-1], block[:, 1:], steps)
    cv2.absdiff(steps[:-1], steps[1:], cross)
    cv2.absdiff(block[:-1], block[1:], down)
    right = steps[:rows]
    cv2.absdiff(block[:rows, :-1], block[:rows, 1:], right)
    return right, down, cross


def cross_difference(field: Pixels) -> Pixels:
    """|x[y,x] + x[y+1,x+1] - x[y,x+1] - x[y+1,x]|, same shape as the input, last row and column 0.

    Source: the residual of Synthbuster (Bammey 2023). It removes what varies along one axis only.
    """
    cross = np.zeros_like(field)
    right = cv2.subtract(field[:, :-1], field[:, 1:])
    cv2.absdiff(right[:-1], right[1:], cross[:-1, :-1])
    return cross


def cross_mean(field: Pixels, cross: Pixels | None = None) -> float:
    """Mean cross-difference of (H, W); `cross` where it is known already."""
    if cross is None:
        cross = cross_difference(field)
    mean: float = cv2.norm(cross, cv2.NORM_L1) / ((field.shape[0] - 1) * (field.shape[1] - 1))
    return mean


def phase_profiles(across: Float64) -> dict[int, Float64]:
    """g_L(p), the mean of abs(x[i+1] - x[i]) over all i with i mod L = p, (L,) for each L in `PHASE_PERIODS`.

    `across` are its means by i, (N,); what is left after whole periods of 16 is not counted.
    """
    longest = PHASE_PERIODS[-1]
    profile: Float64 = across[: across.size // longest * longest].reshape(-1, longest).mean(axis=0)
    profiles = {longest: profile}
    for period in PHASE_PERIODS[-2::-1]:
        profile = 0.5 * (profile[:period] + profile[period:])
        profiles[period] = profile
    return profiles


def phase_peak(profile: Float64) -> float:
    """max/mean - 1 of g_L: 0 for pixels that know no grid of that period."""
    return float(profile.max() / (profile.mean() + _FLOOR) - 1.0)


def phase_peak_odd(profile: Float64) -> float:
    """Largest abs(g_16(p) - g_16(p + 8)) over the mean: a period of 16 that is none of 8, so not JPEG's."""
    half = profile.size // 2
    return float(np.abs(profile[:half] - profile[half:]).max() / (profile.mean() + _FLOOR))


@dataclass(frozen=True, slots=True)
class NeighbouringPixels:
    """Statistics of d = x - up(down(x)), nearest neighbour by 2, see `neighbouring_pixels`."""

    log_variance: float
    variance_spread: float
    log_kurtosis: float
    log_diagonal_ratio: float


def neighbouring_pixels(area: Pixels) -> NeighbouringPixels:
    """The NPR residual: each 2 x 2 block minus its first pixel (Tan et al. 2024, Rethinking the Up-Sampling).

    `log_variance` and `variance_spread` are mean and standard deviation of ln E[d^2] over blocks of 16 x 16 px;
    `log_kurtosis` is ln E[d^4]/E[d^2]^2, `log_diagonal_ratio` ln of the diagonal's energy over that of the two
    sides. The blocks' first pixels, where d is 0, are left out.
    """
    first, *squares = (np.ascontiguousarray(area[y::2, x::2]) for y in (0, 1) for x in (0, 1))
    for part in squares:
        cv2.subtract(part, first, part)
        cv2.multiply(part, part, part)
    energies = [cv2.mean(part)[0] + _FLOOR for part in squares]
    fourth = sum(cv2.norm(part, cv2.NORM_L2SQR) for part in squares) / (3 * first.size)
    total = cv2.add(cv2.add(squares[0], squares[1], first), squares[2], first)
    size = (total.shape[1] // _NPR_BLOCK, total.shape[0] // _NPR_BLOCK)
    blocks = np.log(cv2.resize(total, size, interpolation=cv2.INTER_AREA).astype(np.float64) / 3 + _FLOOR)
    mean = sum(energies) / 3
    return NeighbouringPixels(
        log_variance=float(blocks.mean()),
        variance_spread=float(blocks.std()),
        log_kurtosis=float(np.log((fourth + _FLOOR) / mean**2)),
        log_diagonal_ratio=float(np.log(2 * energies[2] / (energies[0] + energies[1]))),
    )
