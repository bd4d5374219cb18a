"""Build the spectral reference from labelled images.

    python -m pipeline.training.spectral_reference DATA [DATA ...] --cache DIR --out spectral_reference.npz

DATA holds `manifest.jsonl` (see `pipeline.training.dataset`). Photographs as they may be delivered give the reference
distribution of every stratum; photographs and generated images treated alike give the head of every codec: see
`pipeline.training.spectral_copies`. All copies of a photograph are in the same part of every stratum.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.special

from pipeline.detection.spectral import features, strata
from pipeline.detection.spectral.density import standardised
from pipeline.detection.spectral.fitting import (
    FIRST_RANKING,
    MIN_PHOTOGRAPHS,
    SECOND_RANKING,
    as_stored,
    fit_stratum,
    one_copy_each,
    parts_of,
)
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.pvalues import photographs_needed, require_level
from pipeline.detection.spectral.reference import SpectralReference, StratumReference
from pipeline.training.dataset import Labelled, read_manifest
from pipeline.training.spectral_copies import ALIKE, DELIVERED, Copies, columns, measure_copies, readable
from pipeline.training.spectral_head import L2_PENALTY, fit_head
from pipeline.training.splits import FOLDS, SplitManifest, absent_for

SEED = 0
ALPHA = 0.05
"""The level that every stratum must support."""

PRIOR = 0.5
HEAD_FEATURES = re.compile(r"_detail_")
"""What the head weighs. More features rank better on the sources they were fitted to and worse on others."""


def build(
    rows: Sequence[Labelled], copies: Copies, alpha: float = ALPHA, prior: float = PRIOR, l2: float = L2_PENALTY
) -> SpectralReference:
    """Strata of photographs and one head a codec, from these copies alone.

    A stratum that cannot support `alpha` or has too few photographs is left to the pooled ones.

    Raises:
        TooFewPhotographs: a pooled stratum cannot support `alpha`.
        ValueError: too few photographs for a pooled stratum.
    """
    fitted = fit_photographs(rows, copies, alpha)
    photographs = copies[_real(rows)[copies.image]]
    last = photographs[_parts(rows, photographs, SEED)[photographs.image] == SECOND_RANKING]
    for name, stratum in fitted.items():
        fitted[name] = replace(
            _held_against(name, stratum, last), generated=_alike(name, stratum, copies[~_real(rows)[copies.image]])
        )
    for codec in (*strata.CODECS, strata.ANY_LOSSY):
        alike = copies[copies.kind == ALIKE]
        alike = one_lossy_codec_each(alike) if codec == strata.ANY_LOSSY else alike[alike.codec == codec]
        head = fit_head([rows[i] for i in alike.image], _z(fitted, codec, alike), head_columns(codec), l2)
        for name in [name for name in fitted if name.partition("/")[0] == codec]:
            fitted[name] = replace(
                fitted[name],
                weights=head.weights,
                intercept=np.array(head.intercept + scipy.special.logit(prior)),
                prior=np.array(prior),
            )
    return SpectralReference(fitted)


def fit_photographs(
    rows: Sequence[Labelled], copies: Copies, alpha: float = ALPHA, seed: int = SEED
) -> dict[str, StratumReference]:
    """Strata of photographs by name, the pooled ones among them; heads are zero.

    Raises:
        TooFewPhotographs: a pooled stratum cannot support `alpha`.
        ValueError: too few photographs for a pooled stratum.
    """
    photographs = copies[_real(rows)[copies.image] & (copies.kind == DELIVERED)]
    parts = _parts(rows, photographs, seed)
    fitted: dict[str, StratumReference] = {}
    for codec in (*strata.CODECS, strata.ANY_LOSSY):
        of_codec = photographs[_serves(photographs, codec)]
        for size in () if codec == strata.ANY_LOSSY else strata.SIZES:
            of_size = of_codec[of_codec.size == size]
            if _supports(of_size, parts, alpha):
                fitted[f"{codec}/{size}"] = _fit(f"{codec}/{size}", of_size, parts, seed)
        pooled = f"{codec}/{strata.ANY_SIZE}"
        fitted[pooled] = _fit(pooled, of_codec, parts, seed)
        require_level(pooled, fitted[pooled].calibration.size, alpha)
    return fitted


def head_columns(codec: str) -> list[int]:
    """Which of the features that count for a codec the head may weigh."""
    names = features.names_for(strata.masks_jpeg_grid(codec))
    return [i for i, name in enumerate(names) if HEAD_FEATURES.search(name)]


def one_lossy_codec_each(copies: Copies) -> Copies:
    """For the pooled lossy stratum: all sizes of one codec an image, the codecs taken in turn."""
    masked = [codec for codec in strata.CODECS if strata.masks_jpeg_grid(codec)]
    return copies[copies.codec == np.array(masked)[copies.image % len(masked)]]


def _real(rows: Sequence[Labelled]) -> npt.NDArray[np.bool_]:
    return np.array([not row.synthetic for row in rows], np.bool_)


def _parts(rows: Sequence[Labelled], photographs: Copies, seed: int) -> npt.NDArray[np.int64]:
    """The part of every photograph that has copies, by row; -1 for all other rows."""
    parts = np.full(len(rows), -1)
    present = np.unique(photographs.image)
    parts[present] = parts_of(present.size, seed)
    return parts


def _held_against(name: str, stratum: StratumReference, photographs: Copies) -> StratumReference:
    """With one copy treated alike of each of these photographs that falls into the stratum as `held_out`.

    New families are held against these, because their samples are treated alike; a stratum without such copies keeps
    the delivered ones.
    """
    here = _one_alike_each(name, photographs)
    if len(here) < photographs_needed(ALPHA):
        return stratum
    number = here.image.astype(np.float64)
    return replace(stratum, held_out=_alike(name, stratum, photographs), held_out_photograph=number)


def _alike(name: str, stratum: StratumReference, copies: Copies) -> Float64:
    here = _one_alike_each(name, copies)
    values = here.values[:, columns(name.partition("/")[0])]
    return as_stored(standardised(values, stratum.median, stratum.scale))


def _one_alike_each(name: str, copies: Copies) -> Copies:
    codec, _, size = name.partition("/")
    here = copies[(copies.kind == ALIKE) & _serves(copies, codec)]
    here = here if size == strata.ANY_SIZE else here[here.size == size]
    return here[one_copy_each(here.image, SEED)]


def _serves(copies: Copies, codec: str) -> npt.NDArray[np.bool_]:
    if codec != strata.ANY_LOSSY:
        return np.asarray(copies.codec == codec)
    return np.array([strata.masks_jpeg_grid(own) for own in copies.codec.tolist()], np.bool_)


def _supports(copies: Copies, parts: npt.NDArray[np.int64], alpha: float) -> bool:
    part = parts[np.unique(copies.image)]
    ranked = min(int((part == which).sum()) for which in (FIRST_RANKING, SECOND_RANKING))
    return part.size >= MIN_PHOTOGRAPHS and ranked >= photographs_needed(alpha)


def _fit(name: str, photographs: Copies, parts: npt.NDArray[np.int64], seed: int) -> StratumReference:
    values = photographs.values[:, columns(name.partition("/")[0])]
    try:
        return fit_stratum(values, photographs.radial, photographs.image, parts, seed)
    except ValueError as error:
        raise ValueError(f"stratum {name}: {error}") from error


def _z(fitted: dict[str, StratumReference], codec: str, copies: Copies) -> Float64:
    """Standardised features of copies, each by the reference that would serve it."""
    z = np.empty((len(copies), len(columns(codec))))
    for size in strata.SIZES:
        here = copies.size == size
        reference = fitted.get(f"{codec}/{size}", fitted[f"{codec}/{strata.ANY_SIZE}"])
        z[here] = standardised(copies.values[here][:, columns(codec)], reference.median, reference.scale)
    return z


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, build, write; prints the content hash that names the reference."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.spectral_reference")
    parser.add_argument("data", type=Path, nargs="+", help="directory with manifest.jsonl")
    parser.add_argument("--cache", type=Path, required=True, help="directory that keeps measurements")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--split", type=Path, help="split manifest: images of its final split are left out")
    parser.add_argument(
        "--hold-out-fold", type=int, choices=range(FOLDS), help="leave the images of this fold out, too"
    )
    parser.add_argument("--prior", type=float, default=PRIOR, help="share of synthetic media, that of the bundle")
    options = parser.parse_args(arguments)
    rows = readable([row for data in options.data for row in read_manifest(data)])
    if options.split:
        manifest = SplitManifest.model_validate_json(options.split.read_text(encoding="utf-8"))
        absent = absent_for(manifest.rows, options.hold_out_fold)
        rows = [row for row in rows if row.sha256 not in absent]
    elif options.hold_out_fold is not None:
        parser.error("--hold-out-fold: needs --split")
    reference = build(rows, measure_copies(rows, options.cache), prior=options.prior)
    reference.save(options.out)
    sys.stdout.write(f"{reference.content_hash}\n")
    for name, stratum in sorted(reference.strata.items()):
        sys.stdout.write(f"{name}: {int(stratum.photographs)} photographs, {stratum.calibration.size} ranked last\n")


if __name__ == "__main__":
    main()
