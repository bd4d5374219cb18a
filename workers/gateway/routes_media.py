"""Submit media, ask what became of it, fetch the evidence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from pipeline.media.errors import ContentCorrupt, ContentErased, ContentMissing, StoreUnavailable
from schemas.api import IDEMPOTENCY_KEY, Accepted, BatchAnswer, BatchItem, MediaStatus
from schemas.media import DEFAULT_TENANT, MediaReference
from schemas.types import Identifier, Sha256
from workers.gateway import intake
from workers.gateway.bodies import media_type, read_json, read_upload, to_items, to_reference, uploaded_reference
from workers.gateway.intake import Draft, digest, draft, fingerprint
from workers.gateway.limits import content_types, upload_limit, uri_schemes
from workers.gateway.openapi import BATCH_BODY, EVIDENCE_ANSWER, SUBMISSION_BODY
from workers.gateway.parts import Parts, PartsOf, Reader, Submitter
from workers.web.authentication import require_tenant
from workers.web.problems import ProblemError, responses

router = APIRouter(prefix="/v1")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY,
        description="the same key and body are answered alike and sent once; another body under the key is refused",
        examples=["order-4711"],
    ),
]
Traceparent = Annotated[str | None, Header(max_length=256, description="W3C trace context; carried to the decision")]
MediaId = Annotated[Identifier, Path(description="as accepted", examples=["acme-1"])]
Tenant = Annotated[
    Identifier | None, Query(description="whose media; needed by callers with several tenants", examples=["acme"])
]
_SUBMIT = responses(400, 401, 403, 408, 409, 413, 415, 422, 429, 503)
_READ = responses(401, 403, 404, 422, 503)


@router.post(
    "/media",
    status_code=202,
    operation_id="submitMedia",
    summary="Submit one media item",
    tags=["media"],
    responses=_SUBMIT,
    openapi_extra=SUBMISSION_BODY,
)
async def submit(
    request: Request,
    caller: Submitter,
    parts: PartsOf,
    idempotency_key: IdempotencyKey = None,
    traceparent: Traceparent = None,
) -> Accepted:
    """A reference as JSON, or the file itself as multipart/form-data.

    A file goes into the content store first. The answer is 202 only after the brokers have acknowledged the item.
    """
    parts.rates.take(caller, 1)
    refuse_when_behind(parts)
    common = intake.Request(caller, uri_schemes(caller, parts.settings), idempotency_key, traceparent)
    if media_type(request) == "multipart/form-data":
        reference = await _uploaded(request, common, parts)
    else:
        async with in_time(parts):
            data = await read_json(request, parts.settings.max_json_bytes)
        reference = to_reference(data)
    named = draft(common, reference)
    await parts.intake.check_request(common, fingerprint(reference))
    (answer,) = await parts.intake.submit(common, [named])
    if isinstance(answer, ProblemError):
        raise answer
    return answer


@router.post(
    "/media/batch",
    status_code=207,
    operation_id="submitBatch",
    summary="Submit up to 1,000 references",
    tags=["media"],
    responses=_SUBMIT,
    openapi_extra=BATCH_BODY,
)
async def submit_batch(
    request: Request,
    caller: Submitter,
    parts: PartsOf,
    idempotency_key: IdempotencyKey = None,
    traceparent: Traceparent = None,
) -> BatchAnswer:
    """Each item is answered for itself, in order: status 202 after the brokers' acknowledgement, else a problem."""
    refuse_when_behind(parts)
    async with in_time(parts):
        data = await read_json(request, parts.settings.max_batch_bytes)
    items = to_items(data)
    parts.rates.take(caller, len(items))
    common = intake.Request(caller, uri_schemes(caller, parts.settings), idempotency_key, traceparent)
    checked = [_checked(common, item, index) for index, item in enumerate(items)]
    await parts.intake.check_request(common, digest(items))
    drafts = [each for each in checked if isinstance(each, Draft)]
    answers = iter(await parts.intake.submit(common, drafts))
    return _batch_answer([each if isinstance(each, ProblemError) else next(answers) for each in checked])


@router.get(
    "/media/{media_id}",
    operation_id="getMedia",
    summary="What became of a media item",
    tags=["media"],
    responses=_READ,
)
async def status(media_id: MediaId, caller: Reader, parts: PartsOf, tenant: Tenant = None) -> MediaStatus:
    """Its state, the decision that holds now with links to the evidence, and all events so far."""
    whose = require_tenant(caller, tenant, DEFAULT_TENANT)
    found = await run_in_threadpool(parts.views.status, whose, media_id)
    if found is None:
        raise _not_found(f"media_id: nothing is known of {media_id!r} of tenant {whose!r}")
    return found


@router.get(
    "/media/{media_id}/evidence/{sha256}",
    operation_id="getEvidence",
    summary="A blob that a decision rests on",
    tags=["media"],
    response_class=Response,
    responses={**_READ, **responses(410), **EVIDENCE_ANSWER},
)
async def evidence(
    media_id: MediaId, sha256: Sha256, caller: Reader, parts: PartsOf, tenant: Tenant = None
) -> Response:
    """The original, the spectral panel, the model's trace or the manifest; its digest was checked."""
    whose = require_tenant(caller, tenant, DEFAULT_TENANT)
    ref = await run_in_threadpool(parts.views.evidence, whose, media_id, sha256)
    if ref is None:
        raise _not_found(f"sha256: no decision on {media_id!r} names {sha256}")
    try:
        data = await run_in_threadpool(parts.store.get_evidence, ref.uri, ref.sha256)
    except ContentErased as error:
        raise ProblemError(410, "evidence-erased", "Erased", f"{sha256} was erased") from error
    except (ContentMissing, ContentCorrupt, ValueError) as error:
        raise _not_found(f"{sha256} cannot be read from the content store any more") from error
    except StoreUnavailable as error:
        raise store_away() from error
    headers = {"Content-Disposition": f'attachment; filename="{sha256}"', "ETag": f'"{sha256}"'}
    return Response(data, headers=headers, media_type="application/octet-stream")


def refuse_when_behind(parts: Parts) -> None:
    """Raises ProblemError 429 while a stage is too far behind."""
    found = parts.backpressure.refusal()
    if found is None:
        return
    stage, lag, seconds = found
    detail = (
        f"the {stage} stage is {lag.seconds:.0f} s behind ({lag.unread} records at {lag.rate:.1f} a second); "
        f"more than {parts.settings.max_lag_s:.0f} s is too much: come back in {seconds} s"
    )
    parts.metrics.count("mediasieve_gateway_refusals_total", stage.value)
    raise ProblemError(429, "behind", "The fleet is behind", detail, headers={"Retry-After": str(seconds)})


def store_away() -> ProblemError:
    """503."""
    detail = "the content store has no answer now; nothing was accepted"
    return ProblemError(503, "store-unavailable", "The store is down", detail, headers={"Retry-After": "5"})


@asynccontextmanager
async def in_time(parts: Parts) -> AsyncIterator[None]:
    """While a body is received. Raises ProblemError 408: a caller that sends slowly holds memory and files."""
    try:
        async with asyncio.timeout(parts.settings.receive_s):
            yield
    except TimeoutError as error:
        detail = f"body: not sent within {parts.settings.receive_s:g} s"
        raise ProblemError(408, "too-slow", "Too slow", detail, headers={"Connection": "close"}) from error


async def _uploaded(request: Request, common: intake.Request, parts: Parts) -> MediaReference:
    settings, caller = parts.settings, common.caller
    with parts.open_uploads.one():
        async with in_time(parts):
            upload = await read_upload(request, upload_limit(caller, settings), settings.max_json_bytes)
        try:
            async with parts.uploads:
                data = await upload.file.read()
                allowed = content_types(caller, settings)
                reference = await run_in_threadpool(uploaded_reference, upload, data, allowed)
                named = draft(common, reference)
                await run_in_threadpool(parts.store.put, named.submission.tenant, str(reference.sha256), data)
        except StoreUnavailable as error:
            raise store_away() from error
        finally:
            await upload.file.close()
    return reference


def _checked(common: intake.Request, item: Any, index: int) -> Draft | ProblemError:
    try:
        return draft(common, to_reference(item), index)
    except ProblemError as error:
        return error


def _batch_answer(answers: Sequence[Accepted | ProblemError]) -> BatchAnswer:
    items = tuple(
        BatchItem(index=index, status=answer.problem.status, problem=answer.problem)
        if isinstance(answer, ProblemError)
        else BatchItem(index=index, status=202, accepted=answer)
        for index, answer in enumerate(answers)
    )
    accepted = sum(item.accepted is not None for item in items)
    return BatchAnswer(accepted=accepted, refused=len(items) - accepted, items=items)


def _not_found(detail: str) -> ProblemError:
    return ProblemError(404, "not-found", "Not found", detail)
