"""The right to erasure: all that is kept of one media id, decided or sampled, at a person's request."""

from __future__ import annotations

from pipeline.evidence.archive import Archive
from pipeline.evidence.erasure import Eraser, ErasureRefused
from pipeline.evidence.erasure_plan import ErasurePlan, ErasureResult
from schemas.erasure import ErasureCause


def plan_request(archive: Archive, eraser: Eraser, tenant: str, media_id: str) -> ErasurePlan:
    """What `erase_media` would do; reads only.

    Raises:
        ErasureRefused: nothing is kept under the media id, or all of it was erased already.
        ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
    """
    records = [record for uid in archive.find(tenant, media_id) for record in archive.get(uid)]
    live = [record for record in records if not archive.is_erased(record.place)]
    plan = eraser.plan_media(tenant, media_id, live)
    if live or plan.sampled:
        return plan
    if not records:
        raise ErasureRefused(
            f"nothing is kept for tenant {tenant}, media id {media_id}: check both; a decision is archived once the "
            "audit worker has read it, and a released pass leaves evidence only where it was drawn for the audit sample"
        )
    done = archive.erased(records[-1])
    when = f" by {done.actor} at {done.erased_at}, erasure {done.erasure_id}" if done else ""
    raise ErasureRefused(f"tenant {tenant}, media id {media_id} was erased already{when}")


def erase_media(
    archive: Archive, eraser: Eraser, tenant: str, media_id: str, *, actor: str, reason: str
) -> tuple[ErasurePlan, ErasureResult]:
    """Announce and erase. What is still on its way is not archived yet: ask again once it is decided.

    Args:
        archive: where the decisions are found.
        eraser: of the same archive.
        tenant: whose media.
        media_id: as its producer gave it, or as it was minted.
        actor: who erases.
        reason: why; it goes into the audit log for ever, so it should name nobody.

    Raises:
        ErasureRefused: as `plan_request`, or under a legal hold.
        ContentCorrupt, StoreUnavailable, or what the journal raises: half done; do it again.
    """
    plan = plan_request(archive, eraser, tenant, media_id)
    return plan, eraser.carry_out(plan, ErasureCause.REQUEST, actor, reason)
