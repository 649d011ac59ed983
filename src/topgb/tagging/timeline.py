"""Stretches of equal length that cover a video."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """The vectors `first` to `end` - 1 of a video."""

    first: int
    end: int


def windows_of(frames: int, length: int) -> list[Window]:
    """Windows of `length` vectors, one behind the other; the last has those that are left, `length` at most."""
    return [Window(first, min(first + length, frames)) for first in range(0, frames, length)]
