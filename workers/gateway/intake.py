"""From what a caller sent to an acknowledged record on the ingest topic."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid4, uuid5

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import Clock
from pipeline.streaming.transport import NotAcknowledged, OutRecord, QueueFull, Writer
from schemas.api import Accepted
from schemas.envelope import headers_for, schema_uri
from schemas.media import DEFAULT_TENANT, MediaReference
from schemas.topics import INGEST_MAX_BYTES
from schemas.wire import encode
from workers.gateway.registry import Claim, Key, Registered, Registry, Submission
from workers.gateway.sending import Sending
from workers.web.authentication import require_tenant
from workers.web.principal import Principal
from workers.web.problems import ProblemError

log = structlog.get_logger("mediasieve")

SOURCE = "/mediasieve/gateway"
_MEDIA_NAMESPACE = uuid5(NAMESPACE_URL, "https://mediasieve.dev/gateway-media")
_EVENT_NAMESPACE = uuid5(NAMESPACE_URL, "https://mediasieve.dev/gateway-submission")
_MAX_VALUE_BYTES = INGEST_MAX_BYTES - 65_536
"""Room for key, headers, `submitted_at` and the broker's framing."""


@dataclass(frozen=True, slots=True)
class Request:
    """What all items of one HTTP request have in common."""

    caller: Principal
    schemes: frozenset[str]
    idempotency_key: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """One item, named and ready to be registered."""

    reference: MediaReference
    submission: Submission


def draft(request: Request, reference: MediaReference, index: int = 0) -> Draft:
    """Give the item its tenant, media id and fingerprint. Raises ProblemError: not for this caller, or too large.

    With an idempotency key the media id follows from caller, key and index: a repetition has the same.
    """
    _require_scheme(request, reference.uri)
    tenant = require_tenant(request.caller, reference.tenant, DEFAULT_TENANT)
    media_id = reference.media_id or _media_id(request, index)
    named = reference.model_copy(
        update={"tenant": tenant, "media_id": media_id, "source": _source(request.caller, reference)}
    )
    _require_size(named)  # before it is registered: a smaller one may come under the same media id
    return Draft(named, Submission(tenant, media_id, fingerprint(named)))


def fingerprint(reference: MediaReference) -> str:
    """Of what a producer said. Without defaults, or a release with a new field would know no repetition again."""
    return digest(reference.model_dump(mode="json", exclude_defaults=True))


def digest(data: Any) -> str:
    """SHA-256 of JSON, whatever the order of its keys."""
    return hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Intake:
    """Registers, sends, waits for the brokers, and only then says that an item was accepted."""

    def __init__(
        self,
        registry: Registry,
        writer: Writer,
        topic: str,
        clock: Clock,
        metrics: Metrics,
        *,
        sending: Sending | None = None,
    ) -> None:
        """`topic` is the physical name of the ingest topic."""
        self._registry = registry
        self._writer = writer
        self._topic = topic
        self._clock = clock
        self._metrics = metrics
        self._sending = sending or Sending()

    async def check_request(self, request: Request, body: str) -> None:
        """Raises ProblemError: the idempotency key was used for another body. `body`: this one's digest."""
        key = request.idempotency_key
        if key is None:
            return
        if not await run_in_threadpool(self._registry.same_request, request.caller.name, key, body):
            detail = "Idempotency-Key: used before for another body; take a new key for a new submission"
            raise ProblemError(422, "idempotency-key-reused", "The key was used before", detail)

    async def submit(self, request: Request, drafts: Sequence[Draft]) -> list[Accepted | ProblemError]:
        """One answer for each draft, in order."""
        first = {d.submission.key: i for i, d in reversed(list(enumerate(drafts)))}
        wanted = [d for i, d in enumerate(drafts) if first[d.submission.key] == i]
        claims = await run_in_threadpool(self._registry.claim, [d.submission for d in wanted])
        to_send = [d for d in wanted if claims[d.submission.key].claim is Claim.SEND]
        failures = await self._send(request, to_send, claims)
        sent = {d.submission.key for d in to_send}
        answers: list[Accepted | ProblemError] = []
        for i, each in enumerate(drafts):
            key = each.submission.key
            if first[key] != i:
                answers.append(_twice(key, first[key]))
            else:
                answers.append(failures.get(key) or _answer(key, claims[key], key in sent))
        self._count(answers)
        return answers

    async def _send(
        self, request: Request, drafts: Sequence[Draft], claims: dict[Key, Registered]
    ) -> dict[Key, ProblemError]:
        """What failed. What did not is recorded as accepted."""
        started_s = self._clock.monotonic_s()
        results = await asyncio.gather(
            *(self._send_one(request, d, claims[d.submission.key].submitted_at) for d in drafts)
        )
        if drafts:
            self._metrics.observe("mediasieve_gateway_ack_seconds", self._clock.monotonic_s() - started_s)
        failures = {d.submission.key: r for d, r in zip(drafts, results, strict=True) if r is not None}
        accepted = [d.submission.key for d in drafts if d.submission.key not in failures]
        await run_in_threadpool(self._registry.accept, accepted)
        try:
            await run_in_threadpool(self._registry.release, list(failures))
        except SQLAlchemyError as error:  # the lease runs out by itself
            log.warning("lease_kept", submissions=len(failures), cause=type(error).__name__)
        return failures

    async def _send_one(self, request: Request, item: Draft, submitted_at: datetime) -> ProblemError | None:
        started_s = self._clock.wall_s()
        record = self._record(request, item, submitted_at)
        try:
            await asyncio.wrap_future(self._writer.send(record))
        except QueueFull as error:
            return ProblemError(
                503, "queue-full", "The brokers are slow", f"{error}; nothing was sent", headers={"Retry-After": "1"}
            )
        except NotAcknowledged as error:
            log.warning("not_acknowledged", media_id=item.submission.media_id, detail=str(error))
            detail = (
                "the brokers did not acknowledge in time; the submission may be on its way all the same: repeat the "
                "request with the same Idempotency-Key or media_id"
            )
            return ProblemError(503, "not-acknowledged", "Not acknowledged", detail, headers={"Retry-After": "5"})
        self._sending.sent(record, request.traceparent, item.submission.media_id, started_s, self._clock.wall_s())
        return None

    def _record(self, request: Request, item: Draft, submitted_at: datetime) -> OutRecord:
        tenant, media_id = item.submission.key
        subject = f"{tenant}/{media_id}"
        reference = item.reference
        if reference.submitted_at is None:
            reference = reference.model_copy(update={"submitted_at": submitted_at})
        trace = self._sending.context(request.traceparent, subject)
        headers = headers_for(
            event_type=MediaReference.event_type,
            source=SOURCE,
            event_id=str(uuid5(_EVENT_NAMESPACE, f"{subject}\x1f{item.submission.fingerprint}")),
            subject=subject,
            time=datetime.fromtimestamp(self._clock.wall_s(), UTC),
            traceparent=trace.format(),
            data_schema=schema_uri(MediaReference),
        )
        return OutRecord(self._topic, subject.encode(), encode(reference), tuple(headers))

    def _count(self, answers: Sequence[Accepted | ProblemError]) -> None:
        for answer in answers:
            status = 202 if isinstance(answer, Accepted) else answer.problem.status
            self._metrics.count("mediasieve_gateway_submissions_total", str(status))


def _media_id(request: Request, index: int) -> str:
    if request.idempotency_key is None:
        return str(uuid4())
    return str(uuid5(_MEDIA_NAMESPACE, "\x1f".join((request.caller.name, request.idempotency_key, str(index)))))


def _require_scheme(request: Request, uri: str) -> None:
    """Files and buckets are read with the fleet's rights, for whichever tenant: so not every caller may name them."""
    scheme = uri.partition(":")[0].lower()
    if scheme not in request.schemes:
        known = ", ".join(sorted(request.schemes))
        detail = (
            f"uri: this caller may not name {scheme}: URIs, but {known}; upload the file, or ask for a key that may"
        )
        raise ProblemError(403, "scheme-refused", "Not a URI for you", detail)


def _require_size(reference: MediaReference) -> None:
    size = len(encode(reference))
    if size > _MAX_VALUE_BYTES:
        detail = f"{size} bytes as a record, at most {_MAX_VALUE_BYTES}; shorten labels and extensions"
        raise ProblemError(413, "reference-too-large", "The reference is too large", detail)


def _source(caller: Principal, reference: MediaReference) -> str | None:
    """What a source may do is configured at the classifier, so a caller may only be a source that its key names."""
    allowed = caller.limits.sources
    if allowed is None:
        return reference.source
    if reference.source is None:
        return next(iter(allowed)) if len(allowed) == 1 else None
    if reference.source not in allowed:
        detail = f"source: {reference.source!r} is not one of this key's: {', '.join(sorted(allowed)) or 'none'}"
        raise ProblemError(403, "source-refused", "Not your source", detail)
    return reference.source


def _answer(key: Key, registered: Registered, sent: bool) -> Accepted | ProblemError:
    tenant, media_id = key
    if sent or registered.claim is Claim.REPEATED:
        return Accepted(
            media_id=media_id,
            tenant=tenant,
            submitted_at=registered.submitted_at,
            status_url=f"/v1/media/{quote(media_id, safe='')}?tenant={quote(tenant, safe='')}",
        )
    if registered.claim is Claim.BUSY:
        detail = "the same submission is being sent by another request; ask again"
        # Whoever sends it may have died: then it is free when the lease has run out, and not before.
        wait_s = max(1, math.ceil(registered.busy_for_s))
        return ProblemError(409, "in-progress", "In progress", detail, headers={"Retry-After": str(wait_s)})
    detail = f"media_id: {media_id!r} was submitted before with other content; give it an id of its own"
    return ProblemError(409, "media-id-taken", "The media id is taken", detail)


def _twice(key: Key, first: int) -> ProblemError:
    detail = f"media_id: {key[1]!r} is also that of item {first}; give each an id of its own"
    return ProblemError(409, "media-id-twice", "The media id occurs twice", detail)
