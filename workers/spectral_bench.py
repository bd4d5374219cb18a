"""Speed of the spectral stage beside plain numpy code for the same question, interleaved in one run.

`seed` is Pillow's L, fft2, fftshift and log1p(abs); `naive` is that and the radial and angular means by index arrays
made anew for each image. `kernel` is this project's power spectrum with both means, `features` all of its features,
`decode` what comes before both from bytes on: a quotient that features for nothing could not pass.
Read the ratios; the milliseconds depend on the machine and its load.
"""

from __future__ import annotations

import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.detection.spectral import features, kernel
from pipeline.evaluation.power_law import coloured, power_law
from pipeline.media.decode import bt601_luma, decode_image
from pipeline.media.encode import Codec, encode

Floats = npt.NDArray[np.floating]
Step = Callable[[], object]

FORMATS: dict[str, tuple[Codec, int]] = {"png": ("png", 100), "jpeg": ("jpeg", 90)}
BASELINES = ("seed", "naive")
_POOL_CALLS = 8


@dataclass(frozen=True, slots=True)
class Timing:
    """One step on one core: medians over interleaved rounds, in milliseconds of processor time.

    `input` is luma, png or jpeg; `per_seed` and `per_naive` are the baselines' time over the step's, `best_per_naive`
    that of the fastest rounds: load from other programs only ever adds time.
    """

    input: str
    size_px: int
    step: str
    median_ms: float
    best_ms: float
    per_seed: float
    per_naive: float
    best_per_naive: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Bytes to features in a pool: images per second by the wall clock with one process and with all.

    `gain` is the quotient of both, `per_naive` that of `all_per_s` and the naive code's in as many processes.
    """

    input: str
    size_px: int
    step: str
    processes: int
    one_per_s: float
    all_per_s: float
    gain: float
    per_naive: float
    rounds: int


def seed_spectrum(luma: Floats) -> Floats:
    """The plain spectrum: log1p of the magnitude of the centred transform."""
    spectrum: Floats = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(luma - luma.mean()))))
    return spectrum


def naive_profiles(luma: Floats) -> tuple[Floats, Floats]:
    """Its means by pixel of radius and by degree of angle."""
    spectrum = seed_spectrum(luma)
    y, x = np.indices(luma.shape)
    dy, dx = y - luma.shape[0] / 2, x - luma.shape[1] / 2
    radius = np.hypot(dy, dx).astype(int).ravel()
    angle = ((np.arctan2(dy, dx) + np.pi) * 90 / np.pi).astype(int).ravel()
    radial, angular = (np.bincount(i, spectrum.ravel()) / np.maximum(np.bincount(i), 1) for i in (radius, angle))
    return radial, angular


def kernel_profiles(luma: Floats) -> kernel.Profiles:
    """This project's spectrum and means of the analysed area."""
    area = kernel.analysed_area(luma)
    return kernel.profiles(kernel.cell_power(area), (area.shape[0], area.shape[1]))


def from_bytes(step: str, data: bytes) -> object:
    """A step from the bytes of a file on; the project's own steps read them through its guarded decoder."""
    if step in BASELINES:
        with Image.open(io.BytesIO(data)) as image:
            luma = np.asarray(image.convert("L"), np.float32)
        return seed_spectrum(luma) if step == "seed" else naive_profiles(luma)
    decoded = decode_image(data)
    if step == "decode":
        return decoded
    return kernel_profiles(decoded.luma) if step == "kernel" else features.measure(decoded.luma, decoded.rgb)


def on_one_core(size_px: int, rounds: int) -> Iterator[Timing]:
    """Luma, PNG and JPEG of one image of size_px squared."""
    rgb = coloured(power_law(size_px, size_px))
    luma = bt601_luma(rgb)
    of_luma: dict[str, Step] = {
        "seed": lambda: seed_spectrum(luma),
        "naive": lambda: naive_profiles(luma),
        "kernel": lambda: kernel_profiles(luma),
        "features": lambda: features.measure(luma, rgb),
    }
    yield from _compared("luma", size_px, of_luma, rounds)
    for name, (codec, quality) in FORMATS.items():
        data = encode(rgb, codec, quality)
        of_bytes: dict[str, Step] = {step: partial(from_bytes, step, data) for step in (*of_luma, "decode")}
        yield from _compared(name, size_px, of_bytes, rounds)


def on_all_cores(size_px: int, processes: int, rounds: int) -> Iterator[Throughput]:
    """PNG and JPEG bytes to features, one process beside `processes`, and the naive code in as many."""
    rgb = coloured(power_law(size_px, size_px))
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, _one_thread) as one,
        ProcessPoolExecutor(processes, context, _one_thread) as several,
    ):
        for name, (codec, quality) in FORMATS.items():
            data = encode(rgb, codec, quality)
            calls: dict[str, Step] = {
                "one": partial(_spread, one, 1, "features", data),
                "all": partial(_spread, several, processes, "features", data),
                "naive": partial(_spread, several, processes, "naive", data),
            }
            taken = _interleaved(calls, rounds, time.perf_counter)
            per_s = [_POOL_CALLS / statistics.median(taken["one"])]
            per_s += [processes * _POOL_CALLS / statistics.median(taken[call]) for call in ("all", "naive")]
            gain = processes * _paired(taken["one"], taken["all"])
            naive = _paired(taken["naive"], taken["all"])
            yield Throughput(name, size_px, "features", processes, per_s[0], per_s[1], gain, naive, rounds)


def as_rows(results: Sequence[Timing | Throughput]) -> list[dict[str, object]]:
    """Plain objects, floats to four digits."""
    return [
        {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in asdict(result).items()}
        for result in results
    ]


def _compared(name: str, size_px: int, steps: dict[str, Step], rounds: int) -> Iterator[Timing]:
    cv2.setNumThreads(1)
    taken = _interleaved(steps, rounds, time.process_time)
    for step, seconds in taken.items():
        yield Timing(
            name,
            size_px,
            step,
            median_ms=statistics.median(seconds) * 1e3,
            best_ms=min(seconds) * 1e3,
            per_seed=_paired(taken["seed"], seconds),
            per_naive=_paired(taken["naive"], seconds),
            best_per_naive=min(taken["naive"]) / min(seconds),
            rounds=rounds,
        )


def _interleaved(steps: dict[str, Step], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every step in every round; one round before them fills caches and starts processes."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            seconds = clock() - start
            if number:
                taken[name].append(seconds)
    return taken


def _paired(baseline: Sequence[float], seconds: Sequence[float]) -> float:
    """Median of the quotients of the same rounds: slow spells of the machine hit both."""
    return statistics.median(b / s for b, s in zip(baseline, seconds, strict=True))


def _spread(pool: ProcessPoolExecutor, processes: int, step: str, data: bytes) -> None:
    for future in [pool.submit(_repeated, step, data) for _ in range(processes)]:
        future.result()


def _repeated(step: str, data: bytes) -> None:
    for _ in range(_POOL_CALLS):
        from_bytes(step, data)


def _one_thread() -> None:
    cv2.setNumThreads(1)
