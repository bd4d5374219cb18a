"""Bearer tokens of an OpenID provider: signature, issuer, audience and times by PyJWT, then claims to roles."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jwt
import structlog
from pydantic import TypeAdapter, ValidationError

from schemas.types import Identifier
from workers.web.principal import Principal, Role
from workers.web.settings import OidcSettings

log = structlog.get_logger(__name__)

_TENANT: TypeAdapter[str] = TypeAdapter(Identifier)
_MAX_TOKEN = 16_384
_PAUSE_S = 5.0


class ProviderUnavailable(Exception):
    """The provider's signing keys cannot be fetched now: no token can be checked."""


class OidcTokens:
    """Checks tokens. Thread-safe; may wait for the provider, so call it from a worker thread."""

    def __init__(self, settings: OidcSettings) -> None:
        """Fetches nothing yet."""
        self._settings = settings
        self._keys = _SigningKeys(
            settings.jwks_url, lifespan=settings.keys_for_s, timeout=settings.timeout_s, cooldown_duration=10.0
        )

    def principal(self, token: str) -> Principal | None:
        """Whom the token stands for; None when it is invalid, of another issuer or audience, or expired.

        Raises:
            ProviderUnavailable: see there.
        """
        if len(token) > _MAX_TOKEN:
            return None
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                self._keys.get_signing_key_from_jwt(token),
                algorithms=list(settings.algorithms),
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=settings.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWKClientConnectionError, jwt.PyJWKSetError) as error:
            raise ProviderUnavailable(f"{settings.jwks_url}: {error}") from error
        except jwt.PyJWTError as error:
            log.info("token_refused", cause=type(error).__name__, detail=str(error)[:200])
            return None
        return self._principal(claims)

    def _principal(self, claims: Mapping[str, Any]) -> Principal | None:
        subject, expires_at = _subject(claims["sub"]), _time(claims["exp"])
        if subject is None or expires_at is None:
            log.info("token_refused", cause="claims", detail="`sub` or `exp` is beyond what OpenID Connect allows")
            return None
        settings = self._settings
        named = _texts(_claim(claims, settings.tenants_claim))
        everyone = settings.all_tenants is not None and settings.all_tenants in named
        roles = {
            settings.roles[name] for name in _texts(_claim(claims, settings.roles_claim)) if name in settings.roles
        }
        return Principal(
            name=f"oidc:{subject}",
            tenants=None if everyone else frozenset(name for name in named if _is_tenant(name)),
            roles=frozenset[Role](roles),
            expires_at=expires_at,
        )


class _SigningKeys(jwt.PyJWKClient):
    """Asks a provider that has just failed only once in a while.

    PyJWT fetches under a lock: else each of many tokens would wait its time-out, one after the other, in a thread that
    requests with API keys need too.
    """

    _retry_at_s = 0.0

    def fetch_data(self) -> Any:
        """See PyJWKClient. Raises PyJWKClientConnectionError, also for an answer that is no JSON."""
        if time.monotonic() < self._retry_at_s:
            raise jwt.PyJWKClientConnectionError("had no answer a moment ago")
        try:
            return super().fetch_data()
        except (jwt.PyJWKClientError, jwt.PyJWKSetError, ValueError, OSError) as error:
            self._retry_at_s = time.monotonic() + _PAUSE_S
            raise jwt.PyJWKClientConnectionError(str(error)) from error


def _subject(value: Any) -> str | None:
    """OpenID Connect allows 255 ASCII characters; the name is a key in the database."""
    return value if isinstance(value, str) and 1 <= len(value) <= 255 and value.isprintable() else None


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(value), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that very name, else by the dots: `realm_access.roles` as Keycloak writes it."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _is_tenant(name: str) -> bool:
    try:
        _TENANT.validate_python(name)
    except ValidationError:
        return False
    return True
