"""Read the sizes of a Parquet file's columns from its footer (Thrift's compact protocol).

pyarrow gives them too, but ends the process where a footer contradicts itself.
"""

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

_FOOTER_END = 8
_DEEPEST = 20
# Field numbers of parquet.thrift: FileMetaData, RowGroup, ColumnChunk, ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _META, _VALUES, _UNCOMPRESSED = 4, 1, 3, 5, 6


def column_sizes(path: str) -> Iterator[tuple[int, int]]:
    """Yield values and uncompressed bytes of each column in each row group. Raises `ValueError` if malformed."""
    with open(path, "rb") as file:
        footer = _Compact(_read_footer(file)).struct()
    try:
        for group in footer.get(_ROW_GROUPS, []):
            for column in group.get(_COLUMNS, []):
                sizes = column[_META]
                yield max(0, int(sizes[_VALUES])), max(0, int(sizes[_UNCOMPRESSED]))
    except (AttributeError, KeyError, TypeError):
        raise ValueError("its footer lacks the sizes of its columns") from None


def _read_footer(file: BinaryIO) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _FOOTER_END))
    length = int.from_bytes(file.read(4), "little")
    if length + _FOOTER_END > size:
        raise ValueError("its footer is cut off")
    file.seek(size - _FOOTER_END - length)
    return file.read(length)


class _Compact:
    """Values of Thrift's compact protocol; a struct is a mapping by field number, and texts are left out (None)."""

    def __init__(self, data: bytes):
        self._data, self._position = data, 0

    def struct(self, level: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            # A field's type is its value where that is true (1) or false (2).
            fields[number] = kind == 1 if kind <= 2 else self._value(kind, level)
        return fields

    def _value(self, kind: int, level: int) -> Any:
        if level > _DEEPEST:
            raise ValueError("its footer is nested too deeply")
        if kind <= 3:
            return self._byte()
        if kind <= 6:
            return self._integer()
        if kind == 12:
            return self.struct(level + 1)
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, level + 1) for _ in range(self._checked(count))]
        if kind == 11:
            count = self._checked(self._varint())
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4, level + 1), self._value(kinds & 15, level + 1)) for _ in range(count)]
        if kind not in (7, 8, 13):
            raise ValueError(f"its footer has a value of the unknown type {kind}")
        length = self._varint() if kind == 8 else {7: 8, 13: 16}[kind]
        self._position += length
        return None

    def _checked(self, count: int) -> int:
        # Each value takes a byte at least.
        if count > len(self._data) - self._position:
            raise ValueError("its footer is cut off")
        return count

    def _byte(self) -> int:
        if self._position >= len(self._data):
            raise ValueError("its footer is cut off")
        self._position += 1
        return self._data[self._position - 1]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("its footer has a number of more than 64 bits")

    def _integer(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)
