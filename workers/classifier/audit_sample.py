"""A seeded share of what stage 1 passes is looked at by the later stages all the same, to measure what it misses."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from pipeline.detection.sampling import drawn
from schemas.media import AuditDraw


class AuditSampleSettings(BaseModel):
    """The section [classifier.audit_sample]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(default=0.01, ge=0, le=1, description="share of the released passes that is drawn; 0: none")
    seed: str = Field(
        default="mediasieve",
        min_length=1,
        max_length=128,
        description="key of the draw; keep it from producers, and alike in all members",
    )

    def draw(self, uid: UUID) -> AuditDraw | None:
        """The mark of a pass that is drawn; the same at each delivery and replay."""
        return AuditDraw(probability=self.share) if drawn(uid, self.share, self.seed) else None
