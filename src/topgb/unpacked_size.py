"""The most bytes that a compressed file may unpack to: gzip, .npz and Parquet files of a kilobyte can hold gigabytes.

The bound is the process's, as the wording of messages is, or that of a block; shards and sources carry it to other
processes.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from topgb.errors import InputError, option

# Features rarely pack to half of their size; text and empty frames can pack to a twentieth.
TIMES = 20
LEAST_BYTES = 1 << 30
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}

_chosen: int | None = None
_in_block = ContextVar[int | None]("max_unpacked", default=None)


def set_max_unpacked(max_unpacked: int | str | None) -> None:
    """Set how many bytes a compressed file may unpack to, in the whole process; a text is a size such as "8G".

    None is the default: 1 GiB, or 20 times the file if that is more. Raises `InputError` for a text that is no size.
    """
    global _chosen
    _chosen = parse_size(max_unpacked) if isinstance(max_unpacked, str) else max_unpacked


def max_unpacked() -> int | None:
    """The number of bytes of the innermost `unpacking_to`, or else that `set_max_unpacked` was given last."""
    found = _in_block.get()
    return _chosen if found is None else found


@contextmanager
def unpacking_to(most: int) -> Iterator[None]:
    """A block in which this thread, or task, lets files unpack to `most` bytes; others keep their own bound."""
    token = _in_block.set(most)
    try:
        yield
    finally:
        _in_block.reset(token)


def parse_size(text: str) -> int:
    """The bytes of a size such as 500M, 2G or 1.5T, in powers of 1,024. Raises `InputError` for anything else."""
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        size = int(float(number.removesuffix(unit)) * (1 << _UNITS[unit]))
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise InputError(f"{option('max_unpacked', text[:40])} is not a size such as 500M or 8G")
    return size


def most_unpacked(packed: int, chosen: int | None) -> int:
    """The most bytes that a file of `packed` bytes may unpack to, if `chosen` is what `max_unpacked` gave."""
    return max(LEAST_BYTES, TIMES * packed) if chosen is None else chosen


def check_unpacked(path: str, unpacked: int, packed: int, chosen: int | None) -> None:
    """Raise `InputError` if `unpacked` bytes are more than the file `path` of `packed` bytes may unpack to."""
    most = most_unpacked(packed, chosen)
    if unpacked > most:
        raise InputError(
            f"{path} has {packed:,} bytes and unpacks to more than {most:,}, which honest files hardly do; if you "
            f"trust it, allow more with {option('max_unpacked', _size(2 * max(unpacked, most)))}"
        )


class BoundedReader(io.RawIOBase):
    """Reads an unpacking stream, and raises `InputError` where more comes out than the file `path` may hold."""

    def __init__(self, source: io.BufferedIOBase, path: str, packed: int):
        self._source, self._path, self._packed, self._read = source, path, packed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._source.readinto(buffer)
        self._read += count
        check_unpacked(self._path, self._read, self._packed, max_unpacked())
        return count


def _size(count: int) -> str:
    """A size of at least `count` bytes, as `parse_size` reads it."""
    unit, shift = next((unit, shift) for unit, shift in reversed(_UNITS.items()) if count >= 1 << shift)
    return f"{-(-count // (1 << shift))}{unit}"
