"""What each stage lets pass and sends on, what it costs, and what every detector would do alone.

An image that no stage could judge is not flagged by the rule of `metrics`; that the fleet hands it to a person is
counted beside. What the MLLM says is not in a scores file, so it appears as bounds only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.detection.calibration import Bools, Floats
from pipeline.detection.policy import Policy, codec_of
from pipeline.evaluation.cascade_load import Exit, Load, blockable, predict
from pipeline.evaluation.cascade_load import Share as LoadShare
from pipeline.evaluation.cascade_load import Table as Traffic
from pipeline.evaluation.columns import Columns
from pipeline.evaluation.intervals import Interval, Rate, cluster_bootstrap
from pipeline.evaluation.metrics import fnr_at_fpr, roc_auc
from pipeline.evaluation.tables import ROW_ROUNDS, Figure, Judged, Share
from schemas.decision import Mode, Outcome

HOPED_FEWER_MLLM_CALLS = 0.60
"""Of the source design: untested."""

ABLATION_FPR = 0.05


class StageFigures(Figure):
    """One stage. Rates are of the images that reach it; it flags what it does not release."""

    stage: str
    reached_real: int
    reached_synthetic: int
    fnr: Annotated[Share, Field(description="generated images that it releases, or cannot judge")]
    fpr: Annotated[Share, Field(description="real images that it sends on")]
    unjudged: Annotated[int, Field(description="images of both classes that it could not judge, sent to a person")]


class Traffics(Figure):
    """A share of the traffic at the prevalence; the interval draws whole sources."""

    share: float
    interval: Interval | None


class CascadeFigures(Figure):
    """The stages in one mode. `fnr` is 1 - (1 - FNR1)(1 - FNR2|1); the MLLM is a bound beyond it."""

    mode: Mode
    is_policy: Annotated[bool, Field(description="False: the other mode, with thresholds made from the policy's")]
    t1: float
    t2: float
    stages: tuple[StageFigures, ...]
    fnr: Share
    fpr: Share
    fnr_with_mllm_most: Annotated[Share, Field(description="if the MLLM calls everything authentic")]
    block_fpr_most: Annotated[Share, Field(description="real images blocked if the MLLM names a generator every time")]
    prevalence: float
    reach_stage2: Traffics
    reach_mllm: Traffics
    fewer_mllm_calls: Annotated[float, Field(description="against asking it about every image")]
    ms_per_1000: Annotated[dict[str, float], Field(description="stage -> processor milliseconds for 1,000 images")]


class AblationRow(Figure):
    """One detector alone, in the form of the source design's table; FNR at the cut of FPR 5 % on all real images."""

    detector: str
    auc: float
    fnr_at_threshold: Share
    fpr_at_threshold: Share
    fnr_base: Share | None
    fnr_adapter: Share | None
    auc_adapter: float | None
    hypothesis_fnr_adapter: str = ""
    hypothesis_auc_adapter: str = ""


class ShiftRow(Figure):
    """What an adapter costs against its own base model's images, and what the base costs against all bases."""

    base: str
    adapter_type: str
    rank: int | None
    images: int
    adapters: int
    fnr: Share
    fnr_base: Share
    adapter_shift: float
    adapter_shift_interval: Annotated[Interval | None, Field(description="bootstrap over adapters and over prompts")]
    base_shift: float | None


def in_mode(policy: Policy, mode: Mode) -> Policy:
    """The policy itself, or its thresholds in the other mode: fused lets the spectral stage see everything."""
    if policy.mode is mode:
        return policy
    t = policy.thresholds
    if mode is Mode.FUSED:
        thresholds = t.model_copy(update={"t1": 0.0, "t1_alone": t.t1})
    else:
        thresholds = t.model_copy(update={"t1": t.t1 if t.t1_alone is None else t.t1_alone, "t1_alone": None})
        thresholds = thresholds.model_copy(update={"priority": max(thresholds.priority, thresholds.t1)})
    return Policy.model_validate(policy.model_dump() | {"mode": mode, "thresholds": thresholds.model_dump()})


def cascade(
    columns: Columns, policy: Policy, mode: Mode, prevalence: float, mean_ms: Mapping[str, float]
) -> CascadeFigures:
    """The stages of the variant in one mode.

    Args:
        columns: both classes are needed.
        policy: of the bundle.
        mode: which stage-2 score decides.
        prevalence: share of generated images in the traffic whose load is predicted.
        mean_ms: measured milliseconds of one image in decode, classifier and spectral; empty: no cost.
    """
    chosen = in_mode(policy, mode)
    traffic = _traffic(columns)
    exits = traffic.exits(chosen, traffic.stage2_scores(chosen))
    p12 = traffic.fused(chosen)
    way = np.asarray(exits, dtype=object)
    third = np.asarray(way == Exit.STAGE_3, bool)
    reached2 = np.asarray((way != Exit.RELEASED) & (way != Exit.FAILED), bool)
    load = predict(traffic, exits, p12, chosen, prevalence)
    made, real = columns.synthetic, ~columns.synthetic
    stages = (
        _stage("classifier", np.ones(columns.size, bool), reached2, np.asarray(way == Exit.FAILED, bool), made),
        _stage("spectral", reached2, third, np.asarray(way == Exit.NOT_APPLICABLE, bool), made),
    )
    return CascadeFigures(
        mode=mode,
        is_policy=chosen is policy,
        t1=chosen.thresholds.t1,
        t2=chosen.thresholds.t2,
        stages=stages,
        fnr=_share(~third, made),
        fpr=_share(third, real),
        fnr_with_mllm_most=_share(~third | _clearable(p12, chosen), made),
        block_fpr_most=_share(third & blockable(p12, chosen), real),
        prevalence=prevalence,
        reach_stage2=_traffics(load.stage2),
        reach_mllm=_traffics(load.stage3),
        fewer_mllm_calls=1.0 - load.stage3.value,
        ms_per_1000=_cost(mean_ms, load),
    )


def ablation(columns: Columns, detectors: Mapping[str, Judged], *, with_hypotheses: bool) -> tuple[AblationRow, ...]:
    """Classifier alone, spectral alone, both.

    `with_hypotheses` sets the source design's untested figures beside; never for the toy rank sweep.
    """
    real = ~columns.synthetic
    adapted = columns.synthetic & ~columns.adapter_type.where("")
    plain = columns.synthetic & columns.adapter_type.where("")
    rows = []
    for name, (label, fnr, auc) in _HYPOTHESES.items():
        judged = detectors[name]
        held = judged.scores[real]
        flagged = judged.scores >= judged.threshold
        rows.append(
            AblationRow(
                detector=label,
                auc=roc_auc(held, judged.scores[columns.synthetic]),
                fnr_at_threshold=_share(~flagged, columns.synthetic),
                fpr_at_threshold=_share(flagged, real),
                fnr_base=_fnr(held, judged.scores[plain]),
                fnr_adapter=_fnr(held, judged.scores[adapted]),
                auc_adapter=roc_auc(held, judged.scores[adapted]) if adapted.any() else None,
                hypothesis_fnr_adapter=fnr if with_hypotheses else "",
                hypothesis_auc_adapter=auc if with_hypotheses else "",
            )
        )
    return tuple(rows)


def shifts(columns: Columns, judged: Judged) -> tuple[ShiftRow, ...]:
    """Adapter shift and base shift at the threshold; empty when the data lack adapters with base-model images.

    Adapter images are compared with the base-model images that they are paired with (same prompt and seed), or with
    all of their base where the dataset pairs none.
    """
    missed = judged.scores < judged.threshold
    plain = columns.synthetic & columns.adapter_type.where("")
    rows = []
    for base in columns.base.present(plain):
        own = plain & columns.base.where(base)
        base_shift = float(missed[own].mean() - missed[plain].mean()) if len(columns.base.present(plain)) > 1 else None
        adapted = columns.synthetic & ~columns.adapter_type.where("") & columns.base.where(base)
        for kind in columns.adapter_type.present(adapted):
            of_kind = adapted & columns.adapter_type.where(kind)
            for rank in np.unique(columns.rank[of_kind]).tolist():
                chosen = of_kind & (columns.rank == rank)
                partner = own & np.isin(columns.key, columns.paired_with[chosen])
                partner = partner if partner.any() else own
                rows.append(_shift(columns, missed, (base, kind, rank), chosen, partner, base_shift))
    return tuple(rows)


def _shift(  # noqa: PLR0917 - one row's parts
    columns: Columns, missed: Bools, name: tuple[str, str, int], chosen: Bools, partner: Bools, base_shift: float | None
) -> ShiftRow:
    base, kind, rank = name
    of_partner, of_chosen = missed[partner].astype(np.float64), missed[chosen].astype(np.float64)

    def difference(partner_weights: Floats, weights: Floats) -> float:
        return float(of_chosen @ weights / weights.sum() - of_partner @ partner_weights / partner_weights.sum())

    clusters = columns.group.codes[partner], columns.group.codes[chosen]
    return ShiftRow(
        base=base,
        adapter_type=kind,
        rank=rank if rank >= 0 else None,
        images=int(chosen.sum()),
        adapters=len(np.unique(columns.group.codes[chosen])),
        fnr=_share(missed, chosen),
        fnr_base=_share(missed, partner),
        adapter_shift=float(of_chosen.mean() - of_partner.mean()),
        adapter_shift_interval=cluster_bootstrap(difference, *clusters, rounds=ROW_ROUNDS),
        base_shift=base_shift,
    )


_HYPOTHESES = {
    "classifier": ("classifier only", "35-45 %", ".61"),
    "spectral": ("spectral only", "18-24 %", ".76"),
    "fused": ("hybrid", "9-14 %", ".88"),
}


def _traffic(columns: Columns) -> Traffic:
    codec = tuple(codec_of(name) for name in columns.stratum.names)
    source = columns.source.names
    return Traffic(
        columns.synthetic,
        _nan_for_none(columns.scores["classifier"]),
        _nan_for_none(columns.scores["spectral"]),
        tuple(codec[code] for code in columns.stratum.codes),
        tuple(source[code] for code in columns.source.codes),
    )


def _nan_for_none(scores: Floats) -> Floats:
    return np.where(np.isfinite(scores), scores, np.nan)


def _stage(name: str, reached: Bools, goes_on: Bools, unjudged: Bools, made: Bools) -> StageFigures:
    return StageFigures(
        stage=name,
        reached_real=int((reached & ~made).sum()),
        reached_synthetic=int((reached & made).sum()),
        fnr=_share(~goes_on, reached & made),
        fpr=_share(goes_on, reached & ~made),
        unjudged=int((unjudged & reached).sum()),
    )


def _clearable(p12: Floats, policy: Policy) -> Bools:
    """Which images stage 3 would clear if the MLLM called them authentic as surely as it can."""

    def cleared(p: float) -> bool:
        if np.isnan(p):
            return False
        return policy.stage3_outcome(p, policy.final_score(p, 0.0), True) is Outcome.PASS

    return np.array([cleared(p) for p in p12.tolist()], bool)


def _cost(mean_ms: Mapping[str, float], load: Load) -> dict[str, float]:
    if not mean_ms:
        return {}
    first = mean_ms["decode"] + mean_ms["classifier"]
    second = (mean_ms["decode"] + mean_ms["spectral"]) * load.stage2.value
    return {"classifier": 1000.0 * first, "spectral": 1000.0 * second}


def _fnr(real: Floats, synthetic: Floats) -> Share | None:
    return Share.of(fnr_at_fpr(real, synthetic, ABLATION_FPR).fnr) if synthetic.size and real.size else None


def _share(flags: Bools, among: Bools) -> Share:
    return Share.of(Rate(int((flags & among).sum()), int(among.sum())))


def _traffics(share: LoadShare) -> Traffics:
    return Traffics(share=share.value, interval=share.interval)
