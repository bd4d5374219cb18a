"""Slowly changing data beside the records, such as a model that may be replaced while the worker runs."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

Value_co = TypeVar("Value_co", covariant=True)


class SideInput(Protocol[Value_co]):
    """Held by the process that submits batches; every batch is sent with the value that is current then.

    So all processes of a pool change at the same batch, and one that is on its way is finished with the older value.
    """

    def open(self) -> None:
        """Wait until the first value is there. Raises when it cannot be had."""

    def current(self) -> Value_co:
        """The newest value, which must be picklable. Never waits. Raises when newer ones can no longer be had."""

    def close(self) -> None:
        """Give back what `open` took; also after an `open` that failed."""


@runtime_checkable
class Adopting(Protocol):
    """What a stage is that takes a side input."""

    def adopt(self, value: Any) -> None:
        """Called before each batch, with the value that the batch was submitted with. Raises only on a bug."""
