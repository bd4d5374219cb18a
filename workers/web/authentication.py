"""From a request's credentials to a Principal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.settings import SettingsInvalid
from workers.web.api_keys import KEY_PREFIX, ApiKeys, KeyFileInvalid
from workers.web.oidc import OidcTokens, ProviderUnavailable
from workers.web.principal import Principal, Role
from workers.web.problems import ProblemError
from workers.web.settings import AccessSettings

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="mediasieve"'}


class Authenticator:
    """`Authorization: Bearer` with an API key or a token. May wait for the provider: call it from a worker thread."""

    def __init__(self, settings: AccessSettings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises SettingsInvalid when nobody could ever be let in, or the key file cannot be read."""
        if settings.api_keys is None and settings.oidc is None:
            raise SettingsInvalid(
                "MEDIASIEVE_ACCESS__API_KEYS (in the file: access.api_keys): nobody could be let in; name a file that "
                "`mediasieve apikeys create` wrote, or set access.oidc"
            )
        self._keys = ApiKeys(settings.api_keys) if settings.api_keys is not None else None
        self._tokens = OidcTokens(settings.oidc) if settings.oidc is not None else None
        self._clock = clock
        try:
            if self._keys is not None:
                self._keys.all()
        except KeyFileInvalid as error:
            raise SettingsInvalid(f"MEDIASIEVE_ACCESS__API_KEYS (in the file: access.api_keys): {error}") from error

    def authenticate(self, authorization: str | None) -> Principal:
        """Whose credentials these are. Raises ProblemError: 401, or 503 when they cannot be checked now."""
        scheme, _, credentials = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not (credentials := credentials.strip()):
            detail = "send `Authorization: Bearer` with an API key or a token"
            raise ProblemError(401, "unauthenticated", "Credentials are missing", detail, headers=_CHALLENGE)
        try:
            found = self._principal(credentials)
        except (KeyFileInvalid, ProviderUnavailable) as error:
            detail = "credentials cannot be checked now; ask again"
            headers = {"Retry-After": "5"}
            raise ProblemError(503, "access-unavailable", "Access is down", detail, headers=headers) from error
        if found is None:
            detail = "the API key or token is unknown, revoked, expired or not for this service"
            raise ProblemError(401, "unauthenticated", "Credentials are invalid", detail, headers=_CHALLENGE)
        return found

    def _principal(self, credentials: str) -> Principal | None:
        if credentials.startswith(KEY_PREFIX):
            return self._keys.principal(credentials, self._clock()) if self._keys is not None else None
        return self._tokens.principal(credentials) if self._tokens is not None else None


def require(principal: Principal, role: Role) -> Principal:
    """The principal itself. Raises ProblemError 403 without the role."""
    if not principal.may(role):
        detail = f"this needs the role {role}; {principal.name} has {', '.join(sorted(principal.roles)) or 'none'}"
        raise ProblemError(403, "role-missing", "The role is missing", detail)
    return principal


def require_tenant(principal: Principal, named: str | None, otherwise: str) -> str:
    """The tenant of a request: the one it names, else the principal's only one, else `otherwise` for who has all.

    Raises:
        ProblemError: 403 for another's tenant, 422 when several are possible.
    """
    if named is not None:
        if not principal.may_see(named):
            raise ProblemError(403, "tenant-refused", "Not your tenant", f"tenant: {named!r} is not one of yours")
        return named
    if principal.only_tenant is not None:
        return principal.only_tenant
    if principal.tenants is None:
        return otherwise
    if not principal.tenants:
        raise ProblemError(403, "tenant-refused", "No tenant", f"{principal.name} has no tenant")
    detail = f"tenant: name one of {', '.join(sorted(principal.tenants))}"
    raise ProblemError(422, "tenant-missing", "Which tenant", detail)
