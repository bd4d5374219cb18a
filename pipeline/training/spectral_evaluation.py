"""What the spectral reference reaches on image sources it never saw, as a section of the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.detection.policy import DEFAULT_THRESHOLDS
from pipeline.detection.spectral import strata
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.detection.spectral.score import score
from pipeline.training.dataset import Labelled, source_folds
from pipeline.training.measure import Rate, area, misses_at, misses_at_false_alarm_rate
from pipeline.training.spectral_reference import L2_PENALTY, Copies, build, columns

FOLDS = 5
Flags = npt.NDArray[np.bool_]

_INTRODUCTION = """\
## Spectral tier

{real} photographs of {real_sources} sources and {made} generated images of {made_sources} sources ({lora}
marked as LoRA). Every score below belongs to a source that the reference behind it had not seen ({folds}
folds of whole sources, largest first; the L2 penalty {penalty} and everything else were fixed before any
result was seen, and nothing was picked afterwards). Both classes are cut to 256 or 512 px and encoded
alike; a row holds at most one copy of an image. Intervals are of 95 %: AUC by DeLong over images and by a
bootstrap over sources; rates by Clopper-Pearson, which takes images as independent although those of one
source are not, so the truth is wider. FPR 10 % is set on the held-out photographs of the same row. The
score is P(synthetic) at prior 0.5, T2 = {t2}.

Photographs behind each shipped stratum (half fit, half calibrate): {strata}.
"""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Measured copies and what they score, by a reference built without their source; each (n,)."""

    copies: Copies
    synthetic: Flags
    source: npt.NDArray[np.str_]
    former_quality: npt.NDArray[np.int64]
    probability: Float64
    p_value: Float64


def hold_out(rows: Sequence[Labelled], copies: Copies, former_quality: Sequence[int | None]) -> HeldOut:
    """Score every copy with a reference built on the other folds.

    `former_quality` is the JPEG quality of each row's original, None for a lossless one (-1 in the result).
    """
    fold_of_copy = np.array(source_folds(rows, FOLDS))[copies.image]
    probability, p_value = np.full((2, len(copies.image)), np.nan)
    for fold in range(FOLDS):
        reference = build(rows, copies[fold_of_copy != fold])
        for position in np.flatnonzero(fold_of_copy == fold):
            codec = str(copies.codec[position])
            _, served = reference.lookup(f"{codec}/{copies.size[position]}")
            scored = score(copies.values[position, columns(codec)], served)
            probability[position], p_value[position] = scored.probability, scored.p_value
    return HeldOut(
        copies,
        np.array([row.synthetic for row in rows])[copies.image],
        np.array([row.source for row in rows])[copies.image],
        np.array([-1 if quality is None else quality for quality in former_quality])[copies.image],
        probability,
        p_value,
    )


def card(rows: Sequence[Labelled], held: HeldOut, reference: SpectralReference) -> str:
    """The markdown section."""
    here = (held.copies.codec == strata.JPEG_85) & (held.copies.size == strata.SIZES[0])
    return "\n".join(
        [
            _introduction(rows, reference),
            "### By codec and size",
            "",
            "| stratum | photographs / generated | AUC | FNR at FPR 10 % | FPR at T2 | FNR at T2 |",
            "|---|---|---|---|---|---|",
            *_by_stratum(held),
            "",
            "### Anomaly p-values below 5 % (valid: 5 % of photographs; unseen sources are not exchangeable)",
            "",
            "| stratum | photographs | generated |",
            "|---|---|---|",
            *_p_values(held),
            "",
            "### Controls, jpeg_85_94/128_383: does an older codec give the label away?",
            "",
            "| compared | photographs / generated | AUC |",
            "|---|---|---|",
            *_controls(held, here),
            "",
            "### By source at T2, jpeg_85_94/128_383",
            "",
            "| source | class | flagged |",
            "|---|---|---|",
            *_by_source(held, here),
            "",
        ]
    )


def _introduction(rows: Sequence[Labelled], reference: SpectralReference) -> str:
    real = [row for row in rows if not row.synthetic]
    made = [row for row in rows if row.synthetic]
    return _INTRODUCTION.format(
        real=len(real),
        real_sources=len({row.source for row in real}),
        made=len(made),
        made_sources=len({row.source for row in made}),
        lora=sum(row.lora for row in made),
        folds=FOLDS,
        penalty=L2_PENALTY,
        t2=DEFAULT_THRESHOLDS.t2,
        strata=", ".join(f"{name} {int(s.photographs)}" for name, s in sorted(reference.strata.items())),
    )


def _strata(held: HeldOut) -> list[tuple[str, Flags]]:
    found = [
        (f"{codec}/{size}", (held.copies.codec == codec) & (held.copies.size == size))
        for codec in strata.CODECS
        for size in strata.SIZES
    ]
    return [(name, here) for name, here in found if here.any()]


def _by_stratum(held: HeldOut) -> list[str]:
    lines = []
    for name, here in _strata(held):
        made, real = here & held.synthetic, here & ~held.synthetic
        missed, _ = misses_at_false_alarm_rate(held.probability[real], held.probability[made], 0.1)
        missed_t2, false_t2 = misses_at(held.probability[real], held.probability[made], DEFAULT_THRESHOLDS.t2)
        cells = [f"{real.sum()} / {made.sum()}", _auc(held, here), str(missed), str(false_t2), str(missed_t2)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _p_values(held: HeldOut) -> list[str]:
    small = held.p_value < 0.05
    return [
        f"| {name} | {_rate(small[here & ~held.synthetic])} | {_rate(small[here & held.synthetic])} |"
        for name, here in _strata(held)
    ]


def _controls(held: HeldOut, here: Flags) -> list[str]:
    old_jpeg = (held.former_quality >= 0) & (held.former_quality <= 80)
    chosen = {
        "all photographs, generated images stored as PNG": ~held.synthetic | (held.former_quality < 0),
        "all photographs, generated images stored as JPEG": ~held.synthetic | (held.former_quality >= 0),
        "only originals stored as JPEG of quality 80 or below": old_jpeg,
    }
    lines = []
    for name, flags in chosen.items():
        made, real = here & flags & held.synthetic, here & flags & ~held.synthetic
        lines.append(f"| {name} | {real.sum()} / {made.sum()} | {_auc(held, made | real)} |")
    return lines


def _by_source(held: HeldOut, here: Flags) -> list[str]:
    lines = []
    for label, kind in ((False, "photographs"), (True, "generated")):
        of_class = here & (held.synthetic == label)
        for source in sorted(set(held.source[of_class].tolist())):
            flagged = held.probability[of_class & (held.source == source)] >= DEFAULT_THRESHOLDS.t2
            lines.append(f"| {source} | {kind} | {_rate(flagged)} |")
    return lines


def _auc(held: HeldOut, here: Flags) -> str:
    made, real = here & held.synthetic, here & ~held.synthetic
    result = area(
        held.probability[real], held.probability[made], held.source[real].tolist(), held.source[made].tolist()
    )
    return str(result)


def _rate(flags: Flags) -> str:
    return str(Rate(int(flags.sum()), flags.size))
