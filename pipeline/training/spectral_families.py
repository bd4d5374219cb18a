"""The few-shot experiment: a generator family that the reference never saw, from a few samples of it.

The reference is built without the family and without a fifth of the photographs. Ten images of the family are the
samples, all others of it and the photographs kept apart are the test. The same is tried with photographs and with noise
in the samples' place, which must be refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.detection.spectral import strata
from pipeline.detection.spectral.few_shot import FamilyRefused, Gate, add_family
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.evaluation.metrics import roc_auc
from pipeline.training.dataset import Labelled
from pipeline.training.spectral_copies import ALIKE, Copies, columns
from pipeline.training.spectral_rates import scored
from pipeline.training.spectral_reference import build
from pipeline.training.splits import decoder_family

Int64 = npt.NDArray[np.int64]

SIZE = strata.SIZES[0]
KEPT_APART = 5
"""One in this many photographs is for the test."""


_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Trial:
    """One draw of samples. AUC over the test images, meaned over codecs; `after` equals `before` when refused."""

    accepted: bool
    gate: Gate
    before: float
    after: float


def run(
    rows: Sequence[Labelled], copies: Copies, families: Sequence[str], samples: int, seeds: Sequence[int]
) -> dict[str, list[Trial]]:
    """Trials by family name; `real: SOURCE` and `real: any` are photographs in the samples' place, kept apart too.

    Raises:
        ValueError: a family has too few images.
    """
    unit = np.array([row.family or decoder_family(row.generator) if row.synthetic else "" for row in rows])
    real = np.array([not row.synthetic for row in rows])
    apart = real & (np.random.default_rng(0).permutation(len(rows)) % KEPT_APART == 0)
    everywhere = _in_every_codec(rows, copies)
    result: dict[str, list[Trial]] = {}
    for family in families:
        reference = _without(rows, copies, apart | (unit == family))
        members = np.flatnonzero((unit == family) & everywhere)
        if members.size < 2 * samples:
            raise ValueError(f"family {family}: {members.size} images, {2 * samples} are needed")
        photographs = np.flatnonzero(apart & everywhere)
        draws = [_drawn(members, seed, samples) for seed in seeds]
        result[family] = [
            _trial(reference, copies, f"{family} {seed}", chosen, (photographs, rest))
            for seed, (chosen, rest) in zip(seeds, draws, strict=True)
        ]
    reference = _without(rows, copies, apart)
    synthetic = np.flatnonzero(~real & everywhere)
    for name, pool in _photograph_pools(rows, apart & everywhere, 2 * samples).items():
        draws = [_drawn(pool, seed, samples) for seed in seeds]
        result[name] = [
            _trial(reference, copies, f"{name} {seed}", chosen, (rest, synthetic))
            for seed, (chosen, rest) in zip(seeds, draws, strict=True)
        ]
    return result


def _photograph_pools(rows: Sequence[Labelled], apart: npt.NDArray[np.bool_], least: int) -> dict[str, Int64]:
    source = np.array([row.source for row in rows])
    pools = {"real: any": np.flatnonzero(apart)}
    for name in sorted(set(source[apart].tolist())):
        of_source = np.flatnonzero(apart & (source == name))
        if of_source.size >= least:
            pools[f"real: {name}"] = of_source
    return pools


def _without(rows: Sequence[Labelled], copies: Copies, left_out: npt.NDArray[np.bool_]) -> SpectralReference:
    return build(rows, copies[~left_out[copies.image]])


def _in_every_codec(rows: Sequence[Labelled], copies: Copies) -> npt.NDArray[np.bool_]:
    counts = np.zeros(len(rows), np.int64)
    np.add.at(counts, copies.image[(copies.kind == ALIKE) & (copies.size == SIZE)], 1)
    return np.asarray(counts == len(strata.CODECS))


def _drawn(members: Int64, seed: int, samples: int) -> tuple[Int64, Int64]:
    drawn = np.random.default_rng([seed, 1]).permutation(members)
    return drawn[:samples], drawn[samples:]


def _trial(reference: SpectralReference, copies: Copies, name: str, samples: Int64, test: tuple[Int64, Int64]) -> Trial:
    """Images that are samples, and photographs and generated ones that are the test."""
    by_stratum = {reference.lookup(f"{codec}/{SIZE}")[0]: _values(copies, codec, samples) for codec in strata.CODECS}
    before = _auc(reference, copies, *test)
    try:
        changed, gate = add_family(reference, _UNSAFE.sub("-", name), by_stratum)
    except FamilyRefused as refused:
        return Trial(False, refused.gate, before, before)
    return Trial(True, gate, before, _auc(changed, copies, *test))


def _values(copies: Copies, codec: str, images: Int64) -> Float64:
    here = copies[(copies.kind == ALIKE) & (copies.codec == codec) & (copies.size == SIZE)]
    position = {image: i for i, image in enumerate(here.image.tolist())}
    return here.values[[position[image] for image in images.tolist()]][:, columns(codec)]


def _auc(reference: SpectralReference, copies: Copies, real: Int64, synthetic: Int64) -> float:
    here = copies[(copies.kind == ALIKE) & (copies.size == SIZE) & np.isin(copies.image, np.append(real, synthetic))]
    logit, _ = scored(reference, here)
    made = np.isin(here.image, synthetic)
    return float(
        np.mean([roc_auc(logit[~made & (here.codec == c)], logit[made & (here.codec == c)]) for c in strata.CODECS])
    )
