"""What can go wrong with a log. Each says which path, key or field, and what to do."""

from __future__ import annotations


class LogError(Exception):
    """Anything that a log raises on purpose."""


class NotInLog(LogError, LookupError):
    """An object, an entry or a checkpoint is not there."""


class LogCorrupt(LogError):
    """What is stored contradicts itself, its checkpoint, or an earlier checkpoint: nothing may be appended to it.

    `index` is the first entry that is known to be bad; None when the fault is not one entry's.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        """Say what differs from what, by path."""
        super().__init__(message)
        self.index = index


class Superseded(LogError):
    """Another writer has moved the checkpoint: this one must stop, and write nothing more."""


class LogUnavailable(LogError):
    """The storage cannot be used now; try again later. After a failed `append`, open the log again first."""


class Untrusted(LogError):
    """No key that is trusted for this origin and size has signed; or the text is no signed checkpoint at all.

    `index` is the first entry that nobody vouches for; None when that cannot be said.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        """Say who signed what, or what is malformed."""
        super().__init__(message)
        self.index = index


class ProofInvalid(LogError):
    """A proof does not prove what it was given for."""


class KeyFileInvalid(LogError):
    """A key file, or a line in it, cannot be used."""


class LeafInvalid(LogError):
    """An entry of the log is not one of our leaves."""


class WitnessRefused(LogError):
    """A witness does not co-sign. `size` is that of the checkpoint it signed last, 0 when there was none."""

    def __init__(self, message: str, size: int) -> None:
        """Say what is inconsistent."""
        super().__init__(message)
        self.size = size
