"""Fusion weights fitted on scores, cross-fitted by source."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.detection.calibration import Floats, sigmoid
from pipeline.detection.policy import Fusion, FusionWeights, Policy
from pipeline.evaluation.stacking import MIN_PER_CLASS, Scored, StackingError, fit_fusion, folds_by_source, fuse


def scored(count: int = 400, *, by_codec: dict[str, tuple[float, float]] | None = None, seed: int = 0) -> Scored:
    """Half generated; a codec's pair says how far apart the classes lie in each logit."""
    strengths = by_codec or {"lossless": (1.0, 1.0)}
    rng = np.random.default_rng(seed)
    synthetic = np.arange(count) % 2 == 1
    codec = tuple(list(strengths)[i // 2 % len(strengths)] for i in range(count))
    side = np.where(synthetic, 1.0, -1.0)
    logits = [np.array([strengths[c][k] for c in codec]) * side + rng.normal(size=count) for k in (0, 1)]
    s1, s2 = (np.array([sigmoid(float(z)) for z in column]) for column in logits)
    source = tuple(f"{'made' if y else 'real'}-{i % 7}" for i, y in enumerate(synthetic.tolist()))
    return Scored(s1, s2, synthetic, codec, source)


def log_loss(p: Floats, y: Floats) -> float:
    return float(-np.log(np.where(y, p, 1.0 - p)).mean())


def test_the_stage_that_tells_more_gets_the_weight() -> None:
    found = fit_fusion(scored(by_codec={"lossless": (2.0, 0.0)}), Fusion())
    assert found.chosen != "given"
    assert found.fusion.w1 > 5 * found.fusion.w2


def test_a_stage_that_misleads_gets_no_negative_weight() -> None:
    found = fit_fusion(scored(by_codec={"lossless": (1.0, -1.0)}), Fusion())
    assert found.fusion.w2 == 0.0


def test_codecs_that_differ_get_weights_of_their_own() -> None:
    data = scored(1200, by_codec={"lossless": (0.3, 2.0), "webp_lossy": (2.0, 0.0)})
    found = fit_fusion(data, Fusion())
    assert found.chosen == "by_codec"
    own = found.fusion.by_codec
    assert own["lossless"].w2 > own["lossless"].w1
    assert own["webp_lossy"].w1 > 3 * own["webp_lossy"].w2


def test_a_codec_with_few_images_uses_the_common_weights() -> None:
    data = scored(1200, by_codec={"lossless": (0.3, 2.0), "webp_lossy": (2.0, 0.0)})
    rare = 2 * (MIN_PER_CLASS - 1)
    codec = ("rare",) * rare + data.codec[rare:]
    found = fit_fusion(Scored(data.s1, data.s2, data.synthetic, codec, data.source), Fusion())
    assert found.fusion.by_codec.keys() == {"lossless", "webp_lossy"}


def test_that_a_codec_holds_more_generated_images_is_not_learned() -> None:
    """One codec nearly all real, one nearly all generated, scores without any content."""
    data = scored(2000, by_codec={"lossless": (0.0, 0.0)})
    rng = np.random.default_rng(3)
    codec = tuple(("jpeg_85_94", "webp_lossy")[int(y != (rng.random() < 0.1))] for y in data.synthetic)
    found = fit_fusion(Scored(data.s1, data.s2, data.synthetic, codec, data.source), Fusion())
    weights = found.fusion.by_codec.values() or [found.fusion]
    assert all(abs(w.bias) < 0.2 for w in weights)


def test_held_out_scores_come_from_other_sources() -> None:
    """A source whose labels are turned round cannot teach the weights that score it."""
    data = scored(700)
    turned = np.array([name.endswith("-0") for name in data.source])
    swap = Scored(np.where(turned, 1 - data.s1, data.s1), data.s2, data.synthetic, data.codec, data.source)
    found = fit_fusion(swap, Fusion(w1=0.05, w2=0.05))
    assert found.chosen != "given"
    fitted = fuse(swap, found.fusion)
    y = swap.synthetic
    assert log_loss(found.held_out[turned], y[turned]) > log_loss(fitted[turned], y[turned])


def test_given_weights_stay_where_no_fit_beats_them() -> None:
    data = scored(60)
    optimal = Fusion(w1=2.0, w2=2.0)
    found = fit_fusion(data, optimal)
    assert found.log_loss[found.chosen] == min(found.log_loss.values())
    assert set(found.log_loss) == {"given", "common", "by_codec"}
    if found.chosen == "given":
        assert found.fusion == optimal


def test_folds_cut_no_source_and_hold_both_classes() -> None:
    data = scored(700)
    fold = folds_by_source(data)
    assert set(fold) == set(range(5))
    for number in range(5):
        assert len(set(data.synthetic[fold == number])) == 2
    assert len(set(zip(data.source, fold.tolist(), strict=True))) == len(set(data.source))


def test_one_source_of_a_class_is_refused() -> None:
    data = scored(100)
    one = tuple("only" if y else s for s, y in zip(data.source, data.synthetic.tolist(), strict=True))
    with pytest.raises(StackingError, match="generated images of 1 source"):
        fit_fusion(Scored(data.s1, data.s2, data.synthetic, data.codec, one), Fusion())


def test_fuse_is_what_the_policy_computes() -> None:
    data = scored(50, by_codec={"lossless": (1.0, 1.0), "webp_lossy": (1.0, 1.0)})
    fusion = Fusion(w1=0.7, by_codec={"webp_lossy": FusionWeights(w1=1.5, w2=0.1, bias=-0.3)})
    policy = Policy(version="test", fusion=fusion)
    columns = zip(data.s1.tolist(), data.s2.tolist(), data.codec, strict=True)
    assert fuse(data, fusion) == pytest.approx([policy.fuse12(a, b, codec) for a, b, codec in columns])
