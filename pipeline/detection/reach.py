"""From which scores stage 3 can block, and from which it can clear, given how far the MLLM may move them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.detection.calibration import LOGIT_LIMIT, logit, sigmoid
from pipeline.detection.policy import FusionWeights, Policy
from schemas.decision import Mode, Outcome

_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class Span:
    """Both ends belong to it."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.4f} to {self.high:.4f}"


@dataclass(frozen=True, slots=True)
class Reach:
    """Spans of p12, the fused score before the MLLM.

    `arriving`: what reaches stage 3. `block`, `clear`: from where it can be blocked or cleared; None: from nowhere.
    `shift`: how far the MLLM can move the logit. `weighted`: False where the policy's `mllm_weight` is 0, and the
    spans are those that the clip would allow it.
    """

    arriving: Span
    block: Span | None
    clear: Span | None
    shift: tuple[float, float]
    weighted: bool

    def faults(self) -> Iterator[str]:
        """What makes the third stage useless or too powerful, with the settings to change; none of a sound policy."""
        low = self.arriving.low
        if self.clear is None:
            yield (
                f"nothing can be cleared: what arrives has a fused score of at least {low:.4f}; lower t2, raise "
                "t3_clear, or let mllm_clip reach lower"
            )
        if self.block is not None and self.block.low <= low:
            yield (
                f"everything that arrives ({self.arriving}) can be blocked by the MLLM's word; raise p12_block above "
                f"{low:.4f}"
            )


def reach(policy: Policy) -> Reach:
    """What the thresholds, the clip and the weight of a policy allow stage 3.

    Args:
        policy: any mode. In strict mode the lowest fused score that arrives is that of T1 and T2 together.
    """
    clip, weight = policy.fusion.mllm_clip, policy.fusion.mllm_weight
    most = weight * LOGIT_LIMIT if weight else LOGIT_LIMIT
    down, up = max(clip[0], -most), min(clip[1], most)
    t, arriving = policy.thresholds, Span(_lowest_arriving(policy), 1.0)
    block_from = max(arriving.low, t.p12_block, sigmoid(logit(t.t3_block) - up))
    clear_to = sigmoid(logit(t.t3_clear) - down)
    blocks = policy.stage3_outcome(1.0, sigmoid(LOGIT_LIMIT + up), False) is Outcome.BLOCK
    return Reach(
        arriving=arriving,
        block=Span(block_from, 1.0) if blocks else None,
        clear=Span(arriving.low, clear_to) if clear_to >= arriving.low else None,
        shift=(down, up),
        weighted=weight > 0.0,
    )


def _lowest_arriving(policy: Policy) -> float:
    """The least fused score of an item that neither T1 nor T2 lets go, over every codec's weights."""
    t = policy.thresholds
    if policy.mode is Mode.FUSED:
        return t.t2
    weights: list[FusionWeights] = [policy.fusion, *policy.fusion.by_codec.values()]
    s1, s2 = logit(t.t1), logit(_lowest_s2(policy))
    return min(sigmoid(w.w1 * s1 + w.w2 * s2 + w.bias) for w in weights)


def _lowest_s2(policy: Policy) -> float:
    """The least spectral score that T2 stops: T2 itself, or what the calibration of stage 2 makes T2 of."""
    calibration, t2 = policy.fusion.stage2, policy.thresholds.t2
    if calibration is None:
        return t2
    low, high = -LOGIT_LIMIT, LOGIT_LIMIT
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if calibration.probability(middle) >= t2 else (middle, high)
    return sigmoid(high)
