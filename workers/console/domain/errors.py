"""Why an action on a case is refused; each text says what to do next."""

from __future__ import annotations


class ReviewError(Exception):
    """An action that changed nothing."""


class NoSuchCase(ReviewError):
    """There is no such case, or none in the tenants that were named."""


class StaleLease(ReviewError):
    """The token's lease ran out, was given back, or never was: claim the case again."""


class NotYours(ReviewError):
    """Somebody else holds the case, or may decide it and the asker may not."""


class AlreadyDecided(ReviewError):
    """The case was decided already, perhaps by this very token."""


class NotAppealable(ReviewError):
    """The case is open: there is nothing to appeal against yet."""
