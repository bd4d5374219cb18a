"""A second bundle or policy beside the live one: same process, same pixels, and nothing that anybody acts on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from uuid import UUID

import structlog

from pipeline.detection.bundle import Bundle, BundleError, MllmEntry
from pipeline.detection.policy import Policy, PolicyError
from pipeline.detection.sampling import drawn
from pipeline.detection.shadow_settings import ShadowSettings
from pipeline.detection.walk import Seen, Unknown, Walk, walk
from schemas.decision import Decision
from schemas.media import ShadowTrail, StageScore, StageTiming
from schemas.shadow import ShadowResult
from schemas.types import StageName

log = structlog.get_logger(__name__)

_SEED = "shadow"


@dataclass(frozen=True, slots=True)
class Shadow:
    """The rules that watch. `own_pixels`: it has models of its own; else it judges the live scores."""

    bundle: Bundle
    policy: Policy
    own_pixels: bool
    share: float = 1.0
    asks_alike: bool = True
    """Its MLLM part is the live one's, so that the live model's answer is an answer to its own question."""

    @classmethod
    def load(cls, settings: ShadowSettings, live: Bundle) -> Shadow | None:
        """None when nothing watches.

        Raises:
            BundleError: the bundle or the policy cannot be used.
        """
        if not settings.enabled:
            return None
        bundle = live if settings.bundle is None else Bundle.load(settings.bundle)
        try:
            policy = bundle.policy if settings.policy is None else Policy.load(settings.policy)
        except PolicyError as error:
            raise BundleError(f"shadow.policy: {error}") from error
        if policy.fusion.prior != bundle.manifest.prior:
            raise BundleError(
                f"{settings.policy}: fusion.prior {policy.fusion.prior} differs from prior {bundle.manifest.prior} of "
                f"bundle {bundle.version}; set both alike"
            )
        return cls(bundle, policy, settings.bundle is not None, settings.share, _mllm_of(bundle) == _mllm_of(live))

    def trail(self, uid: UUID) -> ShadowTrail | None:
        """An empty trail; None for a decision that is not compared."""
        if not drawn(uid, self.share, _SEED):
            return None
        return ShadowTrail(bundle_version=self.bundle.version, policy_version=self.policy.version)

    def measured(
        self, trail: ShadowTrail | None, stage: StageName, measure: Callable[[], StageScore]
    ) -> ShadowTrail | None:
        """The trail with one more score; None where it fails, which must not touch the live decision."""
        if trail is None or not self.own_pixels:
            return trail
        started_s = monotonic()
        try:
            score = measure()
        except Exception:  # whatever fails in the shadow: the live decision goes on, and the log has it
            log.exception("shadow_failed", stage=stage.value, bundle=self.bundle.version)
            return None
        timing = StageTiming(stage=stage, waited_ms=0.0, worked_ms=(monotonic() - started_s) * 1e3)
        return trail.model_copy(update={"scores": (*trail.scores, score), "timings": (*trail.timings, timing)})

    def result(self, decision: Decision, trail: ShadowTrail | None) -> ShadowResult | None:
        """The live decision beside this one; None without a trail of these very rules, or where comparing fails."""
        try:
            return self._compared(decision, trail)
        except Exception:  # whatever fails in the shadow: the live decision goes on, and the log has it
            log.exception("shadow_failed", stage=decision.stage_exited.value, bundle=self.bundle.version)
            return None

    def _compared(self, decision: Decision, trail: ShadowTrail | None) -> ShadowResult | None:
        mine = self.trail(decision.decision_uid)
        if not self.own_pixels:
            trail = mine  # it needs nothing that the stages before would have to hand on
        if trail is None or mine is None or _rules(trail) != _rules(mine):
            return None
        found = self.verdict(decision, trail)
        return ShadowResult(
            admission=decision.admission,
            facts=decision.facts,
            outcome=decision.outcome,
            risk=decision.risk,
            stage_exited=decision.stage_exited,
            final_score=decision.final_score,
            scores=decision.scores,
            timings=decision.timings,
            shadow=trail,
            shadow_outcome=None if isinstance(found, Unknown) else found.outcome,
            shadow_risk=None if isinstance(found, Unknown) else found.risk,
            shadow_stage=found.stage,
            why=found.why[:1024] if isinstance(found, Unknown) else "",
            decided_at=decision.decided_at,
        )

    def verdict(self, decision: Decision, trail: ShadowTrail) -> Walk:
        """What these rules make of it. The MLLM is asked once: its answer counts for the same question."""
        seen = Seen.of(decision)
        if self.own_pixels:
            answers = tuple(s for s in decision.scores if s.stage is StageName.MLLM)
            seen = replace(seen, scores=(*trail.scores, *answers))
        found = walk(self.policy, seen)
        if found.stage is StageName.MLLM and not self.asks_alike:
            return Unknown(StageName.MLLM, "the shadow's bundle asks the model another question")
        return found


def _rules(trail: ShadowTrail) -> tuple[str, str]:
    return trail.bundle_version, trail.policy_version


def _mllm_of(bundle: Bundle) -> dict[str, str]:
    """Digest of each file that says how the model is asked and heard."""
    entry = bundle.manifest.mllm or MllmEntry()
    return {role: bundle.manifest.files[name].sha256 for role, name in entry.roles().items()}
