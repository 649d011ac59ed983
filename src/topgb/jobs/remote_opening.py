"""Things that each worker opens itself, rather than getting a copy of what is open here."""

from collections.abc import Callable
from typing import Generic, TypeVar, cast

Opened = TypeVar("Opened")


class _OpenedThere(Generic[Opened]):
    def __init__(self, opening: Callable[[], Opened]):
        self._opening = opening

    def __reduce__(self):
        return self._opening, ()


def opened_there(opening: Callable[[], Opened]) -> Opened:
    """A stand-in that can only be pickled, and is what `opening()` gives once unpickled.

    Workers of one machine that map the same file share its pages; copies of a model would be apart.
    """
    return cast(Opened, _OpenedThere(opening))
