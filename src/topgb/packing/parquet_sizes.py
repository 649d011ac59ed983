"""Read the sizes of a Parquet file's columns from its footer and its pages' headers (Thrift's compact protocol).

pyarrow trusts these numbers: a footer that contradicts itself crashes the process, and for a page whose header asks for
gigabytes they are allocated, whatever the footer says.
"""

import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from topgb.files import open_input

_FOOTER_END = 8
_DEEPEST = 20
# Field numbers of parquet.thrift: FileMetaData, RowGroup, ColumnChunk, ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _META, _ENCRYPTED = 4, 1, 3, 8
_TYPE, _VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_OFFSET, _DICTIONARY_OFFSET = 1, 5, 6, 7, 9, 11
_BYTE_ARRAY = 6
# Field numbers of PageHeader and of the headers in it.
_PAGE_UNCOMPRESSED, _PAGE_COMPRESSED, _DATA, _DICTIONARY, _DATA_V2, _PAGE_VALUES = 2, 3, 5, 7, 8, 1
# Bytes of a header to try, in turn: headers hold statistics, and these hold values of the column. pyarrow refuses
# longer headers than the last of these.
_HEADER_BYTES = (1 << 10, 1 << 16, 1 << 20, 1 << 24)


class ColumnSize(NamedTuple):
    """Values and uncompressed bytes of a column in a row group, by the footer or the pages, whichever has more.

    `longest` bounds the bytes of a single text: those of the largest page; 0 for numbers.
    """

    values: int
    size: int
    longest: int


def column_sizes(path: str) -> Iterator[ColumnSize]:
    """Yield the size of each column in each row group. Raises `ValueError` if footer or pages are malformed."""
    with open_input(path) as file:
        footer = _Compact(_read_footer(file), "its footer").struct()
        try:
            for group in footer.get(_ROW_GROUPS, []):
                for column in group.get(_COLUMNS, []):
                    if _ENCRYPTED in column:
                        raise ValueError("its columns are encrypted")
                    yield _column_size(file, column[_META])
        # A field may be missing, or a list or a number may stand where a struct is due.
        except (AttributeError, LookupError, TypeError):
            raise ValueError("its footer or the header of a page lacks the sizes of its columns") from None


def _column_size(file: BinaryIO, column: dict[int, Any]) -> ColumnSize:
    total = max(0, int(column[_VALUES]))
    values = size = largest = 0
    for page in _pages(file, column) if total else ():
        size += max(0, int(page[_PAGE_UNCOMPRESSED]))
        largest = max(largest, int(page[_PAGE_UNCOMPRESSED]))
        # A dictionary's values are read once more where the pages name them.
        values += _data_values(page) or 0
        if values >= total:
            break
    longest = largest if column[_TYPE] == _BYTE_ARRAY else 0
    return ColumnSize(max(values, total), max(size, int(column[_UNCOMPRESSED])), longest)


def _pages(file: BinaryIO, column: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """The headers of a column's pages, as pyarrow finds them."""
    start, dictionary = int(column[_DATA_OFFSET]), int(column.get(_DICTIONARY_OFFSET) or 0)
    position = dictionary if 0 < dictionary < start else start
    end = min(position + int(column[_COMPRESSED]), file.seek(0, os.SEEK_END))
    while 0 <= position < end:
        header, length = _page_header(file, position)
        position += length + max(0, int(header[_PAGE_COMPRESSED]))
        yield header


def _page_header(file: BinaryIO, position: int) -> tuple[dict[int, Any], int]:
    """The header at that byte of the file, and how many bytes it has."""
    for most in _HEADER_BYTES:
        file.seek(position)
        compact = _Compact(file.read(most), "the header of a page")
        try:
            header = compact.struct()
        except ValueError:
            if most == _HEADER_BYTES[-1]:
                raise
            continue
        # Texts are passed over, and may end beyond what was read.
        if compact.position <= most:
            return header, compact.position
    raise ValueError("the header of a page is cut off")


def _data_values(page: dict[int, Any]) -> int | None:
    """The values in a page; None for a page without any of the column's."""
    for kind in (_DATA, _DATA_V2):
        if kind in page:
            return max(0, int(page[kind][_PAGE_VALUES]))
    return None


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

    def __init__(self, data: bytes, what: str):
        self._data, self._what, self.position = data, what, 0

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
            raise ValueError(f"{self._what} is nested too deeply")
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
            raise ValueError(f"{self._what} has a value of the unknown type {kind}")
        length = self._varint() if kind == 8 else {7: 8, 13: 16}[kind]
        self.position += length
        return None

    def _checked(self, count: int) -> int:
        # Each value takes a byte at least.
        if count > len(self._data) - self.position:
            raise ValueError(f"{self._what} is cut off")
        return count

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise ValueError(f"{self._what} is cut off")
        self.position += 1
        return self._data[self.position - 1]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise ValueError(f"{self._what} has a number of more than 64 bits")

    def _integer(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)
