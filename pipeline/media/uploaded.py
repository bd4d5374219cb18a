"""Media that the gateway has put into the content store: `content:SHA256`, always of the item's own tenant.

The URI names no tenant, so that nobody can refer to another tenant's bytes.
"""

from __future__ import annotations

import re

from pipeline.media.content_store import ContentStore
from pipeline.media.errors import ContentCorrupt, ContentMissing, FetchRejected, MediaError
from pipeline.media.fetch import Fetched, verify
from schemas.deadletter import RejectCode
from schemas.decision import ReasonCode
from schemas.media import MediaReference

SCHEME = "content"
_URI = re.compile(rf"{SCHEME}:([0-9a-f]{{64}})")


def uploaded_uri(sha256: str) -> str:
    """The URI of bytes that are kept under this digest."""
    return f"{SCHEME}:{sha256}"


def is_uploaded(uri: str) -> bool:
    """Does it name bytes in the content store."""
    return uri.partition(":")[0].lower() == SCHEME


def read_uploaded(store: ContentStore, tenant: str, ref: MediaReference, max_bytes: int) -> Fetched:
    """The bytes that `ref` names.

    Raises:
        FetchRejected: the URI names no digest, or the bytes are not what the reference declares.
        MediaError: CONTENT_MISSING, also for what was erased or changed; MEDIA_TOO_LARGE.
        StoreUnavailable: see `pipeline.media.errors`.
    """
    match = _URI.fullmatch(ref.uri)
    if match is None:
        raise FetchRejected(RejectCode.URI_REFUSED, f"expected {SCHEME}: and a SHA-256 in 64 lower-case hex digits")
    try:
        data = store.get(tenant, match[1])
    except (ContentMissing, ContentCorrupt) as error:
        raise MediaError(ReasonCode.CONTENT_MISSING, f"uploaded bytes: {error}") from error
    if len(data) > max_bytes:
        raise MediaError(ReasonCode.MEDIA_TOO_LARGE, f"{len(data)} bytes were uploaded; at most {max_bytes} are read")
    verify(ref, data, match[1])
    return Fetched(data, match[1], None)
