"""The two lanes before the spectral and the MLLM stage: served 8:1, the normal one with a maximum age."""

from __future__ import annotations

from pipeline.streaming.batch import Lane
from schemas.topics import Topic


def two_lanes(priority: Topic, normal: Topic, *, slots: int, weight: int, normal_max_age_s: float) -> tuple[Lane, Lane]:
    """Both lanes may use every slot; the weight decides when both want one."""
    held = 8 * slots + 16
    return (
        Lane("priority", (priority,), slots, held, weight),
        Lane("normal", (normal,), slots, held, 1, max_age_s=normal_max_age_s),
    )
