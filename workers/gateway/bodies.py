"""Request bodies: read within limits, then checked as the classifier will check them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pipeline.media.errors import MediaError
from pipeline.media.sniff import sniff
from pipeline.media.uploaded import uploaded_uri
from schemas.api import MAX_BATCH, FieldProblem
from schemas.decision import ReasonCode
from schemas.media import MediaReference
from schemas.wire import UnknownMajorVersion, WireError, parse_json, read
from workers.web.problems import ProblemError

_UNSPECIFIC = frozenset({"application/octet-stream", "binary/octet-stream"})
_NOT_AN_IMAGE_OF_OURS = frozenset({ReasonCode.MEDIA_UNSUPPORTED, ReasonCode.MEDIA_TYPE_MISMATCH})


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it came, and the reference's other fields."""

    file: UploadFile
    fields: dict[str, Any]


def media_type(request: Request) -> str:
    """The body's type without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, max_bytes: int) -> Any:
    """The body as JSON. Raises ProblemError 400, 413, 415."""
    if media_type(request) != "application/json":
        raise unsupported(media_type(request), "application/json")
    chunks = [chunk async for chunk in _limited(request, max_bytes)]
    return _parsed(b"".join(chunks), "body")


async def read_upload(request: Request, max_file_bytes: int, max_json_bytes: int) -> Upload:
    """The parts `file` and, if there is one, `reference`. Raises ProblemError 400, 413, 422; close the file."""
    stream = _limited(request, max_file_bytes + max_json_bytes)
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=1, max_part_size=max_json_bytes)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _malformed(f"body: {error.message}") from error
    except KeyError as error:
        raise _malformed("Content-Type: multipart/form-data without a boundary") from error
    file, text = form.get("file"), form.get("reference")
    if not isinstance(file, UploadFile):
        await form.close()
        raise invalid("file", "missing: send the image as a part with a file name")
    try:
        if (file.size or 0) > max_file_bytes:
            raise too_large(max_file_bytes)
        if set(form) - {"file", "reference"}:
            raise invalid(
                sorted(set(form) - {"file", "reference"})[0], "no such part; there are `file` and `reference`"
            )
        return Upload(file, _fields(text))
    except ProblemError:
        await form.close()
        raise


def to_reference(data: Any) -> MediaReference:
    """Raises ProblemError 422."""
    try:
        return read(MediaReference, data)
    except WireError as error:
        faults = [_field_problem(fault) for fault in error.detail.split("; ")]
        raise ProblemError(422, "invalid", "The reference is invalid", error.detail, errors=faults) from error
    except UnknownMajorVersion as error:
        raise invalid("schema_version", "this release reads 1.x") from error


def to_items(data: Any) -> list[Any]:
    """The items of a batch, each still to be checked. Raises ProblemError 422."""
    if not isinstance(data, dict) or not isinstance(data.get("items"), list):
        raise invalid("items", "expected a JSON object with a list `items`")
    if unknown := sorted(set(data) - {"items"}):
        raise invalid(unknown[0][:256], "no such field; a batch has `items` alone")
    items: list[Any] = data["items"]
    if not 1 <= len(items) <= MAX_BATCH:
        raise invalid("items", f"{len(items)} items; from 1 to {MAX_BATCH}")
    return items


def uploaded_reference(upload: Upload, data: bytes, allowed: frozenset[str]) -> MediaReference:
    """The reference to the bytes in the content store. Raises ProblemError 415, 422."""
    if not data:
        raise invalid("file", "empty")
    declared = (upload.file.content_type or "").partition(";")[0].strip().lower()
    specific = None if not declared or declared in _UNSPECIFIC else declared
    content_type = _content_type(data, specific)
    if content_type not in allowed:
        raise unsupported(content_type or "unknown", ", ".join(sorted(allowed)))
    sha256 = hashlib.sha256(data).hexdigest()
    for field, known in (("sha256", sha256), ("size_bytes", len(data))):
        if upload.fields.get(field, known) != known:
            raise invalid(f"reference.{field}", f"the file's is {known}")
    facts = {"uri": uploaded_uri(sha256), "sha256": sha256, "size_bytes": len(data), "content_type": content_type}
    return to_reference(upload.fields | facts)


def invalid(field: str, detail: str) -> ProblemError:
    """422 for one field."""
    fault = FieldProblem(field=field, detail=detail)
    return ProblemError(422, "invalid", "The request is invalid", f"{field}: {detail}", errors=[fault])


def unsupported(found: str, wanted: str) -> ProblemError:
    """415."""
    detail = f"Content-Type: {found or 'none'} is not taken here; send {wanted}"
    return ProblemError(415, "unsupported-media-type", "Unsupported media type", detail)


def too_large(max_bytes: int) -> ProblemError:
    """413."""
    return ProblemError(413, "too-large", "The body is too large", f"body: more than {max_bytes} bytes")


def _content_type(data: bytes, declared: str | None) -> str | None:
    """By the bytes; what is damaged counts as what it was declared as, and is for people to look at."""
    try:
        return f"image/{sniff(data, declared).format}"
    except MediaError as error:
        if error.code in _NOT_AN_IMAGE_OF_OURS:
            detail = f"file: {error.detail}"
            raise ProblemError(415, "unsupported-media-type", "Unsupported media type", detail) from error
        return declared


def _fields(text: Any) -> dict[str, Any]:
    data = _parsed(text.encode(), "reference") if isinstance(text, str) else {}
    if not isinstance(data, dict):
        raise invalid("reference", "expected a JSON object")
    if "uri" in data:
        raise invalid("reference.uri", "the file is what is referred to; leave it out")
    return data


def _parsed(body: bytes, where: str) -> Any:
    try:
        return parse_json(body)
    except WireError as error:
        raise _malformed(f"{where}: {error.code}: {error.detail}") from error


def _malformed(detail: str) -> ProblemError:
    return ProblemError(400, "malformed", "The body cannot be read", detail)


def _field_problem(fault: str) -> FieldProblem:
    field, _, detail = fault.partition(": ")
    return FieldProblem(field=field[:256] or "body", detail=(detail or fault)[:512])


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:18]) > max_bytes:
        raise too_large(max_bytes)
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > max_bytes:
            raise too_large(max_bytes)
        yield chunk
