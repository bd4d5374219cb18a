"""Build the spectral reference from labelled images.

    python -m pipeline.training.spectral_reference DATA --out spectral_reference.npz --card card.md

DATA holds `manifest.jsonl` (see `pipeline.training.dataset`). Photographs and generated images reach a data
set in different formats and sizes, which alone would give the label away. So every copy that is measured is
cut to a common size and encoded alike, and its former life is blurred alike:

- JPEG below 95 and WebP: half of the copies as they are, half rescaled by 0.75-0.95 before the last encoding;
- JPEG 96 and lossless, where an older JPEG's grid would show: half rescaled, half sent through one more
  JPEG of a random quality and cut off its grid.

An image gives at most one copy to a stratum, so that the copies within one are independent.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special
from PIL import Image

from pipeline.detection.spectral import features, strata
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import (
    MIN_PHOTOGRAPHS,
    SpectralReference,
    StratumReference,
    fit_stratum,
    standardised,
)
from pipeline.media.decode import decode_image
from pipeline.media.errors import MediaError
from pipeline.training.dataset import Labelled, read_manifest, source_folds

SEED = 0
CROP_SIZES_PX = (256, 512)
JPEG_QUALITIES = {
    strata.JPEG_95: (96,),
    strata.JPEG_85: (85, 92),
    strata.JPEG_70: (75,),
    strata.JPEG_LOW: (60,),
}
WEBP_QUALITY = 80
FORMER_QUALITIES = (75, 85, 92, 96)
L2_PENALTY = 0.02
INNER_FOLDS = 4

Pixels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Copies:
    """Measured copies: `image` row numbers, `codec`, `size` buckets (n,), `values` (n, F), `radial` (n, 64)."""

    image: npt.NDArray[np.int64]
    codec: npt.NDArray[np.str_]
    size: npt.NDArray[np.str_]
    values: Float64
    radial: Float64

    def __getitem__(self, chosen: Flags) -> Copies:
        """The chosen copies."""
        return Copies(*(getattr(self, name)[chosen] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Head:
    """Logit = weights @ z + intercept, calibrated at prior 0.5."""

    weights: Float64
    intercept: float


def readable(rows: Sequence[Labelled]) -> list[Labelled]:
    """The rows whose files the pipeline's own decoder accepts; the others are named on standard error."""
    kept: list[Labelled] = []
    for row in rows:
        try:
            decode_image(row.path.read_bytes())
        except MediaError as error:
            sys.stderr.write(f"left out {row.path.name}: {error}\n")
        else:
            kept.append(row)
    return kept


def measure_copies(rows: Sequence[Labelled]) -> tuple[Copies, list[int | None]]:
    """Every usable copy of every readable image, and each original's JPEG quality (None: lossless).

    Raises:
        ValueError: a file is not the one that the manifest names.
    """
    images: list[int] = []
    names: list[tuple[str, str]] = []
    values: list[list[float]] = []
    radial: list[Float64] = []
    former: list[int | None] = []
    for number, row in enumerate(rows):
        original = decode_image(row.path.read_bytes())
        if original.facts.sha256 != row.sha256:
            raise ValueError(f"{row.path}: sha256 differs from manifest.jsonl; fetch the data again")
        former.append(original.facts.jpeg_quality)
        for data in _copies_of(original.rgb, row.sha256):
            copy = decode_image(data)
            if features.not_applicable(copy.luma) is None:
                measurement = features.measure(copy.luma)
                codec, _, size = strata.stratum(copy.facts, copy.luma.shape).partition("/")
                images.append(number)
                names.append((codec, size))
                values.append([measurement.values[name] for name in features.NAMES])
                radial.append(measurement.radial)
    codecs, sizes = zip(*names, strict=True)
    return Copies(np.array(images), np.array(codecs), np.array(sizes), np.array(values), np.array(radial)), former


def build(rows: Sequence[Labelled], copies: Copies) -> SpectralReference:
    """Strata of photographs and one head a codec, from these copies alone.

    Raises:
        ValueError: too few photographs for a pooled stratum.
    """
    synthetic = np.array([row.synthetic for row in rows])
    fitted: dict[str, StratumReference] = {}
    for codec in (*strata.CODECS, strata.ANY_LOSSY):
        of_codec = one_lossy_codec_each(copies) if codec == strata.ANY_LOSSY else copies[copies.codec == codec]
        photographs = of_codec[~synthetic[of_codec.image]]
        for size in () if codec == strata.ANY_LOSSY else strata.SIZES:
            of_size = photographs[photographs.size == size]
            if len(of_size.image) >= MIN_PHOTOGRAPHS:
                fitted[f"{codec}/{size}"] = _fit(f"{codec}/{size}", of_size)
        pooled = f"{codec}/{strata.ANY_SIZE}"
        fitted[pooled] = _fit(pooled, _largest_each(photographs))
        head = fit_head(rows, of_codec, _z(fitted, codec, of_codec))
        for name in [name for name in fitted if name.partition("/")[0] == codec]:
            fitted[name] = replace(fitted[name], weights=head.weights, intercept=np.array(head.intercept))
    return SpectralReference(fitted)


def fit_head(rows: Sequence[Labelled], copies: Copies, z: Float64) -> Head:
    """L2-regularised logistic regression; scale and offset calibrated on folds of held-out sources.

    Where the evidence does not carry over to unseen sources at all, the head is zero: it says 0.5 to everything,
    which is what is known.
    """
    labels = np.array([rows[i].synthetic for i in copies.image])
    weights = _sample_weights([rows[i] for i in copies.image])
    used = sorted(set(copies.image.tolist()))
    fold_of = dict(zip(used, source_folds([rows[i] for i in used], INNER_FOLDS), strict=True))
    folds = np.array([fold_of[i] for i in copies.image.tolist()])
    held_out = np.zeros(len(labels))
    for fold in range(INNER_FOLDS):
        train, test = folds != fold, folds == fold
        w, b = fit_logistic(z[train], labels[train], weights[train], L2_PENALTY)
        held_out[test] = z[test] @ w + b
    slope, offset = fit_logistic(held_out[:, None], labels, weights, 0.0)
    if slope[0] <= 0.0:
        return Head(np.zeros(z.shape[1]), 0.0)
    w, b = fit_logistic(z, labels, weights, L2_PENALTY)
    return Head(slope[0] * w, float(slope[0] * b + offset))


def fit_logistic(z: Float64, labels: Flags, sample_weights: Float64, l2: float) -> tuple[Float64, float]:
    """Minimise the weighted mean log loss + l2/2 * |w|^2 over weights (F,) and an unpenalised intercept."""
    signs = np.where(labels, 1.0, -1.0)
    mass = sample_weights / sample_weights.sum()

    def loss(parameters: Float64) -> tuple[float, Float64]:
        w, b = parameters[:-1], parameters[-1]
        margin = signs * (z @ w + b)
        pull = -mass * signs * scipy.special.expit(-margin)
        value = float(mass @ np.logaddexp(0.0, -margin) + 0.5 * l2 * (w @ w))
        return value, np.append(z.T @ pull + l2 * w, pull.sum())

    found = scipy.optimize.minimize(loss, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B")
    return found.x[:-1], float(found.x[-1])


def one_lossy_codec_each(copies: Copies) -> Copies:
    """For the pooled lossy stratum: all sizes of one codec an image, the codecs taken in turn."""
    masked = [codec for codec in strata.CODECS if strata.masks_jpeg_grid(codec)]
    return copies[copies.codec == np.array(masked)[copies.image % len(masked)]]


def columns(codec: str) -> list[int]:
    """Columns of `Copies.values` that count for a codec."""
    return [features.NAMES.index(name) for name in features.names_for(strata.masks_jpeg_grid(codec))]


def _fit(name: str, photographs: Copies) -> StratumReference:
    try:
        return fit_stratum(photographs.values[:, columns(name)], photographs.radial, SEED)
    except ValueError as error:
        raise ValueError(f"stratum {name}: {error}") from error


def _z(fitted: dict[str, StratumReference], codec: str, copies: Copies) -> Float64:
    """Standardised features of copies, each by the reference that would serve it."""
    z = np.empty((len(copies.image), len(columns(codec))))
    for size in strata.SIZES:
        here = copies.size == size
        reference = fitted.get(f"{codec}/{size}", fitted[f"{codec}/{strata.ANY_SIZE}"])
        z[here] = standardised(copies.values[here][:, columns(codec)], reference.median, reference.scale)
    return z


def _largest_each(copies: Copies) -> Copies:
    largest: dict[int, int] = {}
    for position, image in enumerate(copies.image.tolist()):
        held = largest.get(image)
        if held is None or _size_rank(copies, position) > _size_rank(copies, held):
            largest[image] = position
    return copies[np.isin(np.arange(len(copies.image)), list(largest.values()))]


def _size_rank(copies: Copies, position: int) -> int:
    return strata.SIZES.index(str(copies.size[position]))


def _sample_weights(rows: Sequence[Labelled]) -> Float64:
    """Both classes weigh 1/2; within one a source weighs as the square root of its number of copies."""
    counts: dict[tuple[bool, str], int] = {}
    for row in rows:
        counts[row.synthetic, row.source] = counts.get((row.synthetic, row.source), 0) + 1
    weights = np.array([counts[row.synthetic, row.source] ** -0.5 for row in rows])
    labels = np.array([row.synthetic for row in rows])
    for label in (False, True):
        weights[labels == label] *= 0.5 / weights[labels == label].sum()
    return weights


def _copies_of(rgb: Pixels, sha256: str) -> Iterator[bytes]:
    for size in CROP_SIZES_PX:
        for number, codec in enumerate(strata.CODECS):
            rng = np.random.default_rng([int(sha256[:15], 16), size, number])
            cut = _treated(rgb, size, rng, hide_old_grid=not strata.masks_jpeg_grid(codec))
            if cut is not None:
                yield _encoded(cut, codec, rng)


def _treated(rgb: Pixels, size: int, rng: np.random.Generator, hide_old_grid: bool) -> Pixels | None:
    """A crop of size x size after the common treatment, or None where the image is too small for it."""
    shorter = min(rgb.shape[:2])
    if rng.random() < 0.5:
        scale = max(rng.uniform(0.75, 0.95), size / shorter)
        if scale > 0.95:
            return None
        new_size = (max(size, round(rgb.shape[1] * scale)), max(size, round(rgb.shape[0] * scale)))
        return _random_crop(np.asarray(Image.fromarray(rgb).resize(new_size, Image.Resampling.LANCZOS)), size, rng)
    if not hide_old_grid:
        return _random_crop(rgb, size, rng) if shorter >= size else None
    if shorter < size + 8:
        return None
    wider = _random_crop(rgb, size + 8, rng)
    jpeg = _saved(wider, "JPEG", quality=int(rng.choice(FORMER_QUALITIES)))
    top, left = rng.integers(1, 8, size=2)
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image)[top : top + size, left : left + size]


def _random_crop(rgb: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    top = int(rng.integers(rgb.shape[0] - size + 1))
    left = int(rng.integers(rgb.shape[1] - size + 1))
    return rgb[top : top + size, left : left + size]


def _encoded(rgb: Pixels, codec: str, rng: np.random.Generator) -> bytes:
    if codec == strata.LOSSLESS:
        return _saved(rgb, "PNG", compress_level=1)
    if codec == strata.WEBP:
        return _saved(rgb, "WEBP", quality=WEBP_QUALITY)
    return _saved(rgb, "JPEG", quality=int(rng.choice(JPEG_QUALITIES[codec])))


def _saved(rgb: Pixels, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, image_format, **options)
    return buffer.getvalue()


def main() -> None:
    """Measure, evaluate on held-out sources, build on everything, write the reference and the card."""
    from pipeline.training.spectral_evaluation import card, hold_out  # noqa: PLC0415 - it imports this module

    parser = argparse.ArgumentParser(description="Build the spectral reference from labelled images")
    parser.add_argument("data", type=Path, help="directory with manifest.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--card", type=Path, required=True, help="markdown section of the model card to write")
    arguments = parser.parse_args()
    rows = readable(read_manifest(arguments.data))
    copies, former_quality = measure_copies(rows)
    held_out = hold_out(rows, copies, former_quality)
    reference = build(rows, copies)
    reference.save(arguments.out)
    arguments.card.write_text(card(rows, held_out, reference), encoding="utf-8")


if __name__ == "__main__":
    main()
