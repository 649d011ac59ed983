"""CSVs in UTF-8: read them row by row, plain or gzipped, and quote fields to write."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from topgb.errors import InputError

# YouTube-8M's vocabulary has descriptions of some thousand characters.
LONGEST_LINE = 1 << 20
_ROWS_BETWEEN_REPORTS = 10_000


class UnreadableRowError(InputError):
    """A row of a CSV cannot be read. Attributes: `path`, `line` (from 1), and the `reason` in words."""

    def __init__(self, path: Path, line: int, reason: str):
        super().__init__(f"{path}: line {line} {reason}; save the file as a CSV in UTF-8")
        self.path, self.line, self.reason = path, line, reason

    def __reduce__(self):
        return UnreadableRowError, (self.path, self.line, self.reason)


def csv_rows(
    path: Path, on_progress: Callable[[int, int], None] | None = None, skip_mark: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV in UTF-8 (gzipped if `path` ends in .gz), each with the number of its first line, from 1.

    An empty line is a row without cells. `skip_mark` skips a byte order mark at the start. `on_progress` is called with
    (bytes read so far, bytes of the file). Raises `UnreadableRowError` if a row cannot be read, `InputError` if the
    file cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file; name a CSV")
    try:
        with open(path, "rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            lines = _Lines(path, file, skip_mark)
            reader = csv.reader(lines, strict=True)
            for count, (line, row) in enumerate(_rows(path, reader, lines), start=1):
                yield line, row
                # Only the last report, below, says that all bytes are read.
                if on_progress and count % _ROWS_BETWEEN_REPORTS == 0 and file.tell() < size:
                    on_progress(file.tell(), size)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {path}: {reason}; check the path and its permissions") from error
    if on_progress:
        on_progress(size, size)


def filled_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """`csv_rows` without the byte order mark and the empty rows that spreadsheets leave behind."""
    return ((line, row) for line, row in csv_rows(path, skip_mark=True) if any(cell.strip() for cell in row))


def _rows(path: Path, reader: Iterator[list[str]], lines: "_Lines") -> Iterator[tuple[int, list[str]]]:
    while True:
        first = lines.read + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UnreadableRowError(path, first, f"is not a row of a CSV ({error})") from error
        if row is None:
            return
        yield first, row


class _Lines:
    """The lines of a file as text, with their line ends; `read` counts the lines so far."""

    def __init__(self, path: Path, file: BinaryIO, skip_mark: bool):
        self.path, self.read, self._encoding = path, 0, "utf-8-sig" if skip_mark else "utf-8"
        packed = path.suffix == ".gz"
        self._file = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file))) if packed else file

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        number = self.read + 1
        try:
            # A file given by mistake may have no line ends; it must not fill the memory.
            line = self._file.readline(LONGEST_LINE + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = f"cannot be unpacked: the gzip stream is broken ({error})"
            raise UnreadableRowError(self.path, number, reason) from error
        if not line:
            raise StopIteration
        if len(line) > LONGEST_LINE:
            raise UnreadableRowError(self.path, number, f"is longer than {LONGEST_LINE:,} bytes")
        self.read = number
        try:
            return line.decode(self._encoding if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UnreadableRowError(self.path, number, "is not UTF-8 text") from error


def csv_field(text: str) -> str:
    """`text` as a field of a CSV in UTF-8, in quotes if it needs them."""
    # A model file's JSON can hold halves of surrogate pairs; UTF-8 cannot.
    text = text.encode("utf-8", "backslashreplace").decode()
    # The csv module of Python 3.11 does not quote a lone carriage return.
    if any(sign in text for sign in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
