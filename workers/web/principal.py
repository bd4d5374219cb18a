"""Who is asking, for which tenants, in which roles, within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.types import ContentType, Identifier


class Role(StrEnum):
    """What a caller may do. `admin` may do all of it, for its tenants."""

    SUBMIT = "submit"
    READ = "read"
    REVIEW = "review"
    ADMIN = "admin"


class UriScheme(StrEnum):
    """What the classifier reads; `content` are the tenant's own uploads."""

    HTTP = "http"
    HTTPS = "https"
    CONTENT = "content"
    FILE = "file"
    S3 = "s3"
    GS = "gs"
    AZ = "az"


class Limits(BaseModel):
    """Of one API key. None: the gateway's own limit; of `sources`: any name, and what it is granted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: Annotated[int, Field(ge=1)] | None = None
    per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    content_types: frozenset[ContentType] | None = None
    sources: frozenset[Identifier] | None = None
    schemes: frozenset[UriScheme] | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credentials were checked. `tenants` None: all of them.

    `name` begins with `key:` or `oidc:` and never changes for one caller. `expires_at`: the credentials end then.
    """

    name: str
    tenants: frozenset[str] | None
    roles: frozenset[Role]
    limits: Limits = NO_LIMITS
    expires_at: datetime | None = None

    def may(self, role: Role) -> bool:
        """Has it this role."""
        return role in self.roles or Role.ADMIN in self.roles

    def may_see(self, tenant: str) -> bool:
        """Is this one of its tenants."""
        return self.tenants is None or tenant in self.tenants

    @property
    def only_tenant(self) -> str | None:
        """Its one tenant; None when it has several, or all."""
        return next(iter(self.tenants)) if self.tenants is not None and len(self.tenants) == 1 else None
