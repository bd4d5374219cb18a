"""Numbers of the fleet and of the queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from workers.console.web.figures import figures
from workers.console.web.guard import Visit, visiting
from workers.console.web.templating import page

router = APIRouter()

SPANS = ((6, "6 hours"), (24, "day"), (168, "week"), (720, "30 days"))


@router.get("/dashboard")
def dashboard(
    visit: Annotated[Visit, Depends(visiting)], hours: Annotated[float | None, Query(gt=0, le=744)] = None
) -> Response:
    """Of the tenants of the account alone; lag, outbox and what stage 1 misses are of the whole fleet."""
    desk = visit.desk
    span = hours or desk.settings.flow_hours
    now = datetime.fromtimestamp(desk.clock.wall_s(), UTC)
    flow = desk.service.flow(visit.tenants, now - timedelta(hours=span))
    lags, no_lag = desk.lag.lag()
    misses, no_misses = desk.misses.misses()
    return page(
        "dashboard",
        visit,
        stats=desk.service.stats(visit.tenants),
        figures=figures(flow, now),
        flow=flow,
        lags=lags,
        no_lag=no_lag,
        misses=misses,
        no_misses=no_misses,
        sees_all=visit.tenants is None,
        span=span,
        spans=SPANS,
    )
