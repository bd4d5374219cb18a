"""The model card: what was measured on held-out sources, with counts and intervals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pipeline.detection.calibration import Bools, Floats
from pipeline.detection.policy import DEFAULT_THRESHOLDS
from pipeline.evaluation.metrics import area, at_threshold, fnr_at_fpr, roc_auc
from pipeline.training.dataset import TRAINING_QUALITIES, Labelled
from pipeline.training.head import Model

PRETRAINING_OVERLAP = "imagenet"
"""Sources with this in their name may lie in the backbone's own training set."""


@dataclass(frozen=True)
class Held:
    """Held-out P(synthetic) of every image, (M,), for two deliveries."""

    rows: tuple[Labelled, ...]
    q90: Floats
    delivered: Floats
    penalties: tuple[float, ...]
    folds: int

    @property
    def synthetic(self) -> Bools:
        """The labels, bool (M,)."""
        return np.array([row.synthetic for row in self.rows])


def render(held: Held, shipped: Model, export_gap: float) -> str:
    """The card as Markdown."""
    label = held.synthetic
    lora = np.array([row.lora for row in held.rows])
    overlap = np.array([PRETRAINING_OVERLAP in row.source.lower() for row in held.rows])
    slices = (
        ("all", np.ones(label.size, bool)),
        ("without ImageNet photographs", ~overlap),
        ("LoRA images against all photographs", lora | ~label),
        ("LoRA images against photographs that are not ImageNet's", (lora | ~label) & ~overlap),
    )
    real_sources = len({r.source for r in held.rows if not r.synthetic})
    synthetic_sources = len({r.source for r in held.rows if r.synthetic})
    low, high = TRAINING_QUALITIES
    missed, flagged, _ = at_threshold(held.q90[~label], held.q90[label], DEFAULT_THRESHOLDS.t1)
    return _TEXT.format(
        real=int((~label).sum()),
        synthetic=int(label.sum()),
        images=label.size,
        lora=int(lora.sum()),
        real_sources=real_sources,
        synthetic_sources=synthetic_sources,
        low=low,
        high=high,
        folds=held.folds,
        q90_table=_table(held, held.q90, slices),
        delivered_table=_table(held, held.delivered, slices[:2]),
        source_table=_source_table(held),
        auc=f"{roc_auc(held.q90[~label], held.q90[label]):.3f}",
        t1=DEFAULT_THRESHOLDS.t1,
        t1_missed=f"{missed.count / missed.total:.0%}",
        t1_flagged=f"{flagged.count / flagged.total:.0%}",
        penalty=f"{shipped.penalty:.3g}",
        penalties=", ".join(f"{p:.3g}" for p in held.penalties),
        temperature=f"{shipped.calibration.temperature:.4f}",
        bias=f"{shipped.calibration.bias:.4f}",
        gap=f"{export_gap:.1e}",
    )


def _table(held: Held, scores: Floats, slices: tuple[tuple[str, Bools], ...]) -> str:
    cuts = (DEFAULT_THRESHOLDS.t1, DEFAULT_THRESHOLDS.priority)
    lines = ["| measure | " + " | ".join(name for name, _ in slices) + " |", "|---" * (len(slices) + 1) + "|"]
    columns = [_column(held, scores, chosen, cuts) for _, chosen in slices]
    lines += [f"| {name} | " + " | ".join(c[name] for c in columns) + " |" for name in columns[0]]
    return "\n".join(lines)


def _column(held: Held, scores: Floats, chosen: Bools, cuts: tuple[float, ...]) -> dict[str, str]:
    label = held.synthetic
    real, synthetic = chosen & ~label, chosen & label
    sources = np.array([row.source for row in held.rows])
    cells = {"AUC": str(area(scores[real], scores[synthetic], list(sources[real]), list(sources[synthetic])))}
    for rate in (0.10, 0.01):
        missed, flagged, _ = fnr_at_fpr(scores[real], scores[synthetic], rate)
        cells[f"FNR at FPR {rate:.0%}"] = f"{missed}, realised FPR {flagged.count}/{flagged.total}"
    for cut in cuts:
        missed, flagged, _ = at_threshold(scores[real], scores[synthetic], cut)
        cells[f"FNR at P >= {cut:.2f}"] = str(missed)
        cells[f"FPR at P >= {cut:.2f}"] = str(flagged)
    return cells


def _source_table(held: Held) -> str:
    groups = Counter((row.synthetic, row.source) for row in held.rows)
    numbers: Counter[bool] = Counter()
    lines = ["| source | images | errors at T1 |", "|---|---|---|"]
    for (synthetic, source), count in sorted(groups.items(), key=lambda g: (g[0][0], -g[1])):
        numbers[synthetic] += 1
        mine = np.array([(row.synthetic, row.source) == (synthetic, source) for row in held.rows])
        wrong = (held.q90[mine] >= DEFAULT_THRESHOLDS.t1) != synthetic
        kind = "generated" if synthetic else "photographs"
        lines.append(f"| {kind} {numbers[synthetic]} | {count} | {int(wrong.sum())} ({wrong.mean():.0%}) |")
    return "\n".join(lines)


_TEXT = """\
# Model card: bundle `first`, tier 1

A frozen ImageNet EfficientNet-Lite0 and one logistic head. It is a **baseline that makes the
pipeline work, not a detector to rely on**: {images} training images, and the figures below, are far
too few for any claim about media in the wild. Train on your own media, or bring a stronger model,
before a verdict of it has consequences. On sources that it has not seen, re-encoded as JPEG q90, its
AUC is {auc}, and at the default T1 = {t1:.2f} it misses {t1_missed} of the generated images
while it sends {t1_flagged} of the photographs on to the next tier.

## Data

{real} photographs from {real_sources} public collections and {synthetic} generated images ({lora}
made with a LoRA) from {synthetic_sources} public repositories. The images are not part of this
project. Known biases: the photographs are mostly web JPEGs of 320-500 px, the generated images
mostly 512 or 1024 px; the subjects differ; most LoRA images are drawn; several generators share a
decoder; images of one repository resemble each other.

## Method

Up to 4 native-pixel crops of 256 px (`pipeline.detection.classifier.preprocess.crops`, nothing is
resized), mean logit over crops. For training every image of both classes was re-encoded as JPEG,
quality {low}-{high} drawn from the file's digest, so that the last codec does not tell the label.
L2 penalty {penalty} (per fold: {penalties}), temperature {temperature}, bias {bias}. **P(synthetic)
holds at a prior of 0.5**; at another prevalence shift the logit by log(prior odds).

The numbers are **cross-validated by source** in {folds} folds: the model that scores an image saw
no image of its source, neither for the fit nor for the penalty nor for the calibration. One run;
nothing was chosen by these numbers. **The shipped head was fitted once more on all {images}
images**, so no held-out figure of the shipped weights themselves exists. The stored float16 weights
move a logit by at most {gap}.

## Numbers

Counts in brackets, with the 95 % Clopper-Pearson interval. It takes the images as independent,
which they are not: read it as a lower bound of the uncertainty. The bootstrap draws whole sources.
The scores of the folds' models are pooled.
The cuts for a fixed FPR are read off the same photographs, and that for 1 % rests on a handful of
them.

Both classes re-encoded as JPEG q90:

{q90_table}

As delivered, that is, as a deployment would see the files. The formats of the classes differ (the
photographs are nearly all JPEG, about half of the generated images PNG), so this is **not** the
figure to quote:

{delivered_table}

Errors at T1 = {t1:.2f} by source (JPEG q90); a source that the training lacks is where a deployment
starts:

{source_table}

## Limits

- The default thresholds are unplanned: derive your own from labelled media of yours.
- Not tested: faces, press photographs, screenshots, documents, art, thumbnails, video frames,
  edited photographs, recompression below q{low}, rescaling, adversarial changes. Expect worse.
- Content moves the score, not only traces: the generated images show many pets, toys and anime
  portraits, and one collection of snapshots of pets and objects (33 photographs) is flagged nearly
  whole.
- A large part of the photographs may lie in the backbone's own training set: see the columns
  without them.

## Licence

Apache-2.0. The backbone's weights are the checkpoint published as `tf_efficientnet_lite0.in1k`
under Apache-2.0; see `NOTICE`.

## Reproduce

    pip install 'mediasieve[torch,dev]'
    python -m pipeline.training.first_classifier --data DIR --out DIR

`DIR` holds images and a `manifest.jsonl`, described in `pipeline/training/dataset.py`.
"""
