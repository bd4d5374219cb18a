"""Image, panel and native pixels of a case, each made anew and for whom may see the case alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import PlainTextResponse, Response

from workers.console.web.guard import Visit, visiting
from workers.console.web.images import Encoded, NoPicture
from workers.console.web.routes.cases import CaseId

router = APIRouter(prefix="/cases/{case_id}")

Place = Annotated[int, Query(ge=0, le=65_535)]


@router.get("/image")
def image(case_id: CaseId, visit: Annotated[Visit, Depends(visiting)]) -> Response:
    """The submitted image, at most 1,024 px."""
    data, said = visit.desk.files.image(visit.desk.service.case(case_id, visit.tenants).decision)
    return _absent(said) if data is None else _picture(lambda: visit.desk.images.preview(data))


@router.get("/panel")
def panel(case_id: CaseId, visit: Annotated[Visit, Depends(visiting)]) -> Response:
    """The spectral panel as the model was shown it."""
    data, said = visit.desk.files.panel(visit.desk.service.case(case_id, visit.tenants).decision)
    return _absent(said) if data is None else _picture(lambda: visit.desk.images.preview(data))


@router.get("/pixels")
def pixels(case_id: CaseId, visit: Annotated[Visit, Depends(visiting)], left: Place = 0, top: Place = 0) -> Response:
    """A window of native pixels."""
    data, said = visit.desk.files.image(visit.desk.service.case(case_id, visit.tenants).decision)
    return _absent(said) if data is None else _picture(lambda: visit.desk.images.window(data, left, top))


def _picture(make: Callable[[], Encoded]) -> Response:
    try:
        made = make()
    except NoPicture as error:
        return _absent(str(error))
    return Response(made.data, media_type=made.media_type)


def _absent(said: str) -> Response:
    """The page's script shows the sentence in the place of the picture."""
    return PlainTextResponse(said, 404)
