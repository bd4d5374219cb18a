"""Why media could not be fetched, analysed or stored. Each error says what its caller does next."""

from __future__ import annotations

from schemas.deadletter import RejectCode
from schemas.decision import ReasonCode

_MAX_DETAIL = 1024


class MediaError(Exception):
    """Media that were fetched, or are known to be too large to be, and cannot be analysed: escalate.

    Picklable: it crosses process borders.
    """

    def __init__(self, code: ReasonCode, detail: str) -> None:
        super().__init__(code, detail[:_MAX_DETAIL])
        self.code = code
        self.detail = detail[:_MAX_DETAIL]

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class FetchRejected(Exception):
    """The reference is bad and stays bad: a dead letter, no retry."""

    def __init__(self, code: RejectCode, detail: str) -> None:
        super().__init__(code, detail[:_MAX_DETAIL])
        self.code = code
        self.detail = detail[:_MAX_DETAIL]

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class FetchDeferred(Exception):
    """The origin has no answer now: ask again later. `retry_after_s` is 0 when the origin named no time."""

    def __init__(self, cause: str, host: str, retry_after_s: float = 0.0) -> None:
        super().__init__(cause[:_MAX_DETAIL], host, retry_after_s)
        self.cause = cause[:_MAX_DETAIL]
        self.host = host
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.host}: {self.cause}"


class HostBusy(FetchDeferred):
    """A limit of ours: the origin was not asked at all, so this is no failed attempt."""


class ContentMissing(Exception):
    """The object is not in the store."""


class ContentErased(ContentMissing):
    """The object's key was destroyed: nobody can read it again."""


class ContentCorrupt(Exception):
    """The stored bytes are not those that were put."""


class StoreUnavailable(Exception):
    """The store cannot be used now (network, credentials, disk full): wait, nothing is lost."""
