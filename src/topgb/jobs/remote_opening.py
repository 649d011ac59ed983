"""Objects that each worker opens itself instead of receiving a copy."""

from collections.abc import Callable
from typing import Generic, TypeVar, cast

Opened = TypeVar("Opened")


class _OpenedThere(Generic[Opened]):
    def __init__(self, opening: Callable[[], Opened]):
        self._opening = opening

    def __reduce__(self):
        return self._opening, ()


def opened_there(opening: Callable[[], Opened]) -> Opened:
    """A stand-in for `opening()` that can only be pickled; unpickling it calls `opening()` and gives the result.

    Workers on one machine that map the same file share its pages in memory; copies of a model would share nothing.
    """
    return cast(Opened, _OpenedThere(opening))
