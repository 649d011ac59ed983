"""What a harness does, read off the fuzzer's bytes: any bytes are a valid input, and few changed bits change little."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

# Where lengths, offsets and products of them go wrong.
HOSTILE = [
    *(0, 1, 7, 8, 127, 128, 255, 256, 65_535),
    *(2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
]


class Choices:
    """Numbers and bytes taken from the front of `data`; where it has ended, zeros."""

    def __init__(self, data: bytes):
        self._data, self._position = data, 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._position < len(self._data)

    def number(self, width: int = 1) -> int:
        """An unsigned integer of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.number(1 if len(items) <= 256 else 2) % len(items)]

    def size(self) -> int:
        """A small number, a hostile one, or any of 64 bits."""
        kind = self.number()
        if kind < 128:
            return kind % 16
        return HOSTILE[kind % len(HOSTILE)] if kind < 240 else self.number(8)

    def take(self, count: int) -> bytes:
        taken = self._data[self._position : self._position + count]
        self._position += count
        return taken

    def blob(self) -> bytes:
        """Up to 255 bytes."""
        return self.take(self.number())

    def rest(self) -> bytes:
        return self.take(max(0, len(self._data) - self._position))
