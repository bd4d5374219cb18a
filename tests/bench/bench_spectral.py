"""python -m tests.bench.bench_spectral: the spectral chain against the plain numpy recipe, interleaved.

Read the ratios; the milliseconds depend on the machine and its load.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.detection.spectral import features, kernel
from pipeline.detection.spectral.analyser import SpectralAnalyser
from pipeline.detection.spectral.panel import render_panel
from tests.support.spectral_images import decoded, power_law, small_reference

ROUNDS = 9


def plain_recipe(luma: kernel.Float32) -> np.ndarray:
    """float64 fft2, fftshift, log1p, radial and angular means by index arrays made anew for each image."""
    spectrum = np.fft.fftshift(np.fft.fft2(luma - luma.mean()))
    log_power = np.log1p(np.abs(spectrum))
    y, x = np.indices(luma.shape)
    radius = np.hypot(y - luma.shape[0] / 2, x - luma.shape[1] / 2).astype(int)
    sector = ((np.arctan2(y - luma.shape[0] / 2, x - luma.shape[1] / 2) + np.pi) * 90 / np.pi).astype(int)
    return np.concatenate([np.bincount(i.ravel(), log_power.ravel()) for i in (radius, sector)])


def half_plane(luma: kernel.Float32) -> kernel.Profiles:
    """The same means by the kernel."""
    return kernel.profiles(kernel.power_spectrum(luma))


def medians_ms(steps: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of interleaved rounds."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def main() -> None:
    """Print one table a size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.npz"
        small_reference().save(path)
        analyser = SpectralAnalyser(path)
    for side in (256, 512, 1024):
        image = decoded(power_law(side, side))
        analysis = analyser.analyse(image)
        results = medians_ms(
            {
                "plain recipe": lambda image=image: plain_recipe(image.luma),
                "half-plane profiles": lambda image=image: half_plane(image.luma),
                "all features": lambda image=image: features.measure(image.luma),
                "whole analysis": lambda image=image: analyser.analyse(image),
                "panel": lambda image=image, analysis=analysis: render_panel(image, analysis),
            }
        )
        for name, value in results.items():
            print(f"{side:5d} px  {name:20s} {value:8.2f} ms  x{results['plain recipe'] / value:.2f}")


if __name__ == "__main__":
    main()
