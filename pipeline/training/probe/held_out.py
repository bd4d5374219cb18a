"""What both tiers say of images whose source and decoder family had no part in their making.

For every outer fold: classifier and spectral heads, the calibration and the weights of the fusion come from the
other folds; so do the cuts that the fold is then judged at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.detection.calibration import Bools, Calibration, Floats, fit
from pipeline.detection.policy import Fusion
from pipeline.detection.spectral import features, strata
from pipeline.detection.spectral.density import standardised
from pipeline.evaluation.score_row import ScoreRow
from pipeline.evaluation.stacking import Scored, fit_fusion, fuse
from pipeline.training.dataset import Labelled
from pipeline.training.probe.crossfit import CrossFit, Images
from pipeline.training.probe.discriminant import Float32
from pipeline.training.spectral_head import fit_head
from pipeline.training.spectral_reference import head_columns
from pipeline.training.splits import FOLDS

VIEW_CODECS = {
    "png": strata.LOSSLESS,
    "q90": strata.JPEG_85,
    "q90-384": strata.JPEG_85,
    "q75": strata.JPEG_70,
    "thumbnail": strata.WEBP,
}
"""View -> the codec bucket that its crops fall into."""

FUSED_VIEWS = ("png", "q90", "q75", "thumbnail")
"""The views that the weights of the fusion are fitted on: one a codec bucket."""

HEADLINE = "q90"
_MAD_TO_STD = 1.4826

STAGES = ("classifier", "spectral", "fused")


@dataclass(frozen=True)
class HeldOut:
    """Of one view, P(synthetic) by stage, each (M,), NaN where the image is in no fold.

    `inner[k][stage]`: of the images outside fold k, by heads that saw neither fold k nor the image's own fold.
    """

    outer: Mapping[str, Floats]
    inner: Sequence[Mapping[str, Floats]]


def spectral_logits(x: Float32, rows: Sequence[Labelled], images: Images, codec: str) -> CrossFit:
    """The spectral head of the shipped reference, cross-fitted: x float32 (M, F) in the order of `features.NAMES`."""
    names = features.names_for(strata.masks_jpeg_grid(codec))
    values = x[:, [features.NAMES.index(name) for name in names]].astype(np.float64)

    def scored(held_out: Sequence[int], fold: int) -> Floats:
        """Logits of the images of one fold, NaN elsewhere."""
        train = ~np.isin(images.fold, held_out) & (images.fold >= 0)
        train &= ~np.isin(images.source, images.source[np.isin(images.fold, held_out) & ~images.packaged])
        photographs = values[train & ~images.synthetic]
        median = np.median(photographs, axis=0)
        scale = np.maximum(_MAD_TO_STD * np.median(np.abs(photographs - median), axis=0), 1e-6)
        z = standardised(values, median, scale)
        head = fit_head([row for row, chosen in zip(rows, train, strict=True) if chosen], z[train], head_columns(codec))
        return np.where(images.fold == fold, z @ head.weights + head.intercept, np.nan)

    inner = []
    outer = np.full(len(rows), np.nan)
    for fold in range(FOLDS):
        parts = [scored((fold, other), other) for other in range(FOLDS) if other != fold]
        inner.append({codec: np.nansum(parts, axis=0) + np.where(np.isnan(parts).all(axis=0), np.nan, 0.0)})
        outer = np.where(images.fold == fold, scored((fold,), fold), outer)
    return CrossFit({codec: outer}, inner, [])


def held_out(
    classifier: CrossFit, spectral: Mapping[str, CrossFit], images: Images, views: Sequence[str]
) -> dict[str, HeldOut]:
    """Calibrated and fused, by view.

    Args:
        classifier: cross-fitted on all views.
        spectral: view -> its own cross-fit, logits under the name of the view's codec.
        images: labels and folds.
        views: what to score; the classifier is calibrated on the headline view alone, as it is shipped.
    """
    nan = np.full(len(images.fold), np.nan)
    outer = {view: {stage: nan.copy() for stage in STAGES} for view in views}
    inner: dict[str, list[dict[str, Floats]]] = {view: [] for view in views}
    for fold in range(FOLDS):
        others = (images.fold >= 0) & (images.fold != fold)
        mine = images.fold == fold
        fitted_on = others & ~images.thumbnail_only
        calibration = fit(classifier.inner[fold][HEADLINE][fitted_on], images.synthetic[fitted_on])
        first = {view: calibration.probabilities(classifier.inner[fold][view]) for view in views}
        second = {}
        own = {}
        for view in views:
            codec = VIEW_CODECS[view]
            scale = _calibration(spectral[view].inner[fold][codec][fitted_on], images.synthetic[fitted_on])
            second[view] = _probability(scale, spectral[view].inner[fold][codec])
            own[view] = _probability(scale, spectral[view].outer[codec])
        fusion = fit_fusion(
            _scored(first, second, images, fitted_on, [v for v in views if v in FUSED_VIEWS]), Fusion()
        ).fusion
        for view in views:
            inner[view].append(
                {
                    "classifier": first[view],
                    "spectral": second[view],
                    "fused": _fused(first[view], second[view], images, view, fusion),
                }
            )
            one = calibration.probabilities(classifier.outer[view])
            together = _fused(one, own[view], images, view, fusion)
            for stage, values in zip(STAGES, (one, own[view], together), strict=True):
                outer[view][stage][mine] = values[mine]
    return {view: HeldOut(outer[view], inner[view]) for view in views}


def _calibration(logits: Floats, synthetic: Bools) -> Calibration | None:
    """None where the evidence did not carry over to held-out sources."""
    try:
        return fit(logits, synthetic)
    except ValueError:
        return None


def _probability(calibration: Calibration | None, logits: Floats) -> Floats:
    """0.5 without a calibration: that is what is known then."""
    return np.where(np.isnan(logits), np.nan, 0.5) if calibration is None else calibration.probabilities(logits)


def _scored(
    first: Mapping[str, Floats], second: Mapping[str, Floats], images: Images, rows: Bools, views: Sequence[str]
) -> Scored:
    return Scored(
        np.concatenate([first[view][rows] for view in views]),
        np.concatenate([second[view][rows] for view in views]),
        np.tile(images.synthetic[rows], len(views)),
        tuple(VIEW_CODECS[view] for view in views for _ in range(int(rows.sum()))),
        tuple(images.unit[rows].tolist()) * len(views),
    )


def _fused(s1: Floats, s2: Floats, images: Images, view: str, fusion: Fusion) -> Floats:
    found = np.full(len(s1), np.nan)
    both = ~np.isnan(s1) & ~np.isnan(s2)
    one_view = Scored(s1[both], s2[both], images.synthetic[both], (VIEW_CODECS[view],) * int(both.sum()), ())
    found[both] = fuse(one_view, fusion)
    return found


def score_rows(found: Mapping[str, HeldOut], rows: Sequence[Labelled], images: Images, view: str) -> list[ScoreRow]:
    """Held-out scores of one view as lines of a scores file; packaged thumbnails and the final split are left out."""
    outer = found[view].outer
    return [
        ScoreRow(
            key=row.sha256,
            sha256=row.sha256,
            synthetic=row.synthetic,
            source=row.source,
            group=row.source,
            generator=row.generator or "unknown",
            base=str(images.unit[i]),
            variant=view,
            fold=int(images.fold[i]),
            stratum=f"{VIEW_CODECS[view]}/{strata.SIZES[0]}",
            classifier=float(outer["classifier"][i]),
            spectral=float(outer["spectral"][i]),
            fused=float(outer["fused"][i]),
        )
        for i, row in enumerate(rows)
        if images.fold[i] >= 0 and not images.thumbnail_only[i]
    ]
