"""Settings of what speaks HTTP to people and producers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from workers.web.principal import Role

SigningAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric ones alone: with a shared secret, whoever checks a token could make one."""


_DEFAULT_DATABASE = "sqlite:////var/lib/mediasieve/mediasieve.sqlite"


class WebSettings(BaseModel):
    """Where a web process listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    port: int = Field(default=0, ge=0, le=65535, description="0: any free port, named in the log")
    public_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")] | None = Field(
        default=None,
        description="how the outside reaches it, through a proxy that ends TLS; https:// turns on HSTS; none: as asked",
    )
    drain_s: float = Field(default=20.0, gt=0, le=3600, description="time for open requests after SIGTERM, in seconds")


class OidcSettings(BaseModel):
    """Bearer tokens (JWT, RFC 7519) of an OpenID provider."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1, description="the claim `iss` that a token must have")
    audience: str = Field(min_length=1, description="the claim `aud` that a token must name")
    jwks_url: str = Field(pattern=r"^https?://", description="where the provider publishes its signing keys (RFC 7517)")
    algorithms: tuple[SigningAlgorithm, ...] = Field(
        default=("RS256", "ES256"), min_length=1, description="signature algorithms to accept"
    )
    tenants_claim: str = Field(default="tenants", description="claim with a tenant or a list of them")
    all_tenants: str | None = Field(
        default=None,
        min_length=1,
        description="value of that claim which stands for all tenants; none: no token has all",
    )
    roles_claim: str = Field(default="roles", description="claim with a role or a list of them; dots go into objects")
    roles: dict[str, Role] = Field(
        default_factory=lambda: {role.value: role for role in Role},
        description="the provider's names to submit, read, review or admin; other names are no role",
    )
    leeway_s: float = Field(default=30.0, ge=0, le=300, description="how far clocks may differ, in seconds")
    keys_for_s: float = Field(default=300.0, gt=0, le=86_400, description="how long fetched signing keys are used")
    timeout_s: float = Field(default=5.0, gt=0, le=60, description="longest wait for the provider's keys")


class AccessSettings(BaseModel):
    """Who may use gateway and console."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_keys: Path | None = Field(
        default=None, description="file of hashed API keys; `mediasieve apikeys create` writes it; none: no API keys"
    )
    oidc: OidcSettings | None = Field(default=None, description="bearer tokens of an OpenID provider; none: no tokens")


class ClientSettings(BaseModel):
    """What the command line tells a gateway of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: SecretStr | None = Field(
        default=None, description="API key or bearer token for `mediasieve publish --gateway`; a secret"
    )


class DatabaseSettings(BaseModel):
    """The database of gateway and console."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL, sqlite:////FILE for one host or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE; "
        "none: /var/lib/mediasieve/mediasieve.sqlite",
    )
    busy_timeout_s: float = Field(
        default=15.0, gt=0, le=600, description="longest wait for SQLite's write lock, or for a free connection"
    )
    pool_size: int = Field(default=10, ge=1, le=200, description="connections to a database server")

    @model_validator(mode="after")
    def _of_a_known_kind(self) -> Self:
        if not self.resolved.startswith(("sqlite:////", "sqlite+pysqlite:////", "postgresql+psycopg://")):
            raise ValueError("`url` must begin with sqlite:////ABSOLUTE/FILE or postgresql+psycopg://")
        return self

    @property
    def resolved(self) -> str:
        """The URL with its password: never print it."""
        return _DEFAULT_DATABASE if self.url is None else self.url.get_secret_value()
