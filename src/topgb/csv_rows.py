"""CSVs: read them row by row, plain or gzipped, and quote fields to write."""

import codecs
import csv
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from topgb.errors import InputError
from topgb.file_kinds import HEAD, known_kind
from topgb.files import open_input
from topgb.unpacked_size import BoundedReader

# YouTube-8M's vocabulary has descriptions of some thousand characters.
LONGEST_LINE = 1 << 20
_ROWS_BETWEEN_REPORTS = 10_000
# UTF-32's mark begins like one of UTF-16's, so it comes first.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GZIP = b"\x1f\x8b"
# Bytes shown on either side of one that is not UTF-8.
_SHOWN = 12


class UnreadableRowError(InputError):
    """A row of a CSV cannot be read. Attributes: `path`, `line` (from 1), and the `reason` in words."""

    def __init__(self, path: Path, line: int, reason: str):
        super().__init__(f"{path}: line {line} {reason}; save the file as a CSV in UTF-8")
        self.path, self.line, self.reason = path, line, reason

    def __reduce__(self):
        return UnreadableRowError, (self.path, self.line, self.reason)


def csv_rows(path: Path, on_progress: Callable[[int, int], None] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV in UTF-8 (or gzipped), each with the number of its first line, from 1.

    An empty line is a row without cells. `on_progress` is called with (bytes read so far, bytes of the file). Raises
    `UnreadableRowError` if a row cannot be read, `InputError` if the file cannot be opened.
    """
    with opened_csv(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        lines = Lines(path, file)
        for count, (line, row) in enumerate(numbered_rows(csv.reader(lines, strict=True), lines), start=1):
            yield line, row
            # Only the last report, below, says that all bytes are read.
            if on_progress and count % _ROWS_BETWEEN_REPORTS == 0 and file.tell() < size:
                on_progress(file.tell(), size)
    if on_progress:
        on_progress(size, size)


@contextmanager
def opened_csv(path: Path) -> Iterator[BinaryIO]:
    """The file, opened for reading bytes. Raises `InputError` if it cannot be opened or read."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file; name a CSV")
    try:
        with open_input(path) as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {path}: {reason}; check the path and its permissions") from error


class Lines:
    """The lines of a CSV as text, with their line ends; `read` counts the lines so far.

    A line of more than `longest` bytes is refused.
    With `marked` a byte order mark at the start says how the text is encoded (UTF-8, 16 or 32), and is left out.
    """

    def __init__(self, path: Path, file: BinaryIO, marked: bool = False, longest: int = LONGEST_LINE):
        self.longest = longest
        self.path, self.read, self._encoding = path, 0, "utf-8-sig" if marked else "utf-8"
        # Both have `peek`: binary files are opened with a buffer.
        source = cast(io.BufferedReader, file)
        if path.suffix == ".gz" or source.peek(2).startswith(_GZIP):
            size = os.fstat(file.fileno()).st_size
            source = io.BufferedReader(BoundedReader(gzip.GzipFile(fileobj=file), str(path), size))
        self._file: io.BufferedReader | TextIO = source
        if marked:
            self._begin_wide(source)

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        number = self.read + 1
        line = self._readline(number)
        if not line:
            raise StopIteration
        if len(line) > self.longest:
            raise UnreadableRowError(self.path, number, f"is longer than {self.longest:,} bytes")
        self.read = number
        if isinstance(line, str):
            return line
        try:
            return line.decode(self._encoding if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UnreadableRowError(self.path, number, _not_utf8(line, error.start)) from error

    def _begin_wide(self, source: io.BufferedReader) -> None:
        with _unpacking(self.path, 1):
            head = source.peek(HEAD)[:HEAD]
        encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
        if encoding is not None:
            self._file = io.TextIOWrapper(source, encoding, newline="\n")
        elif (other := known_kind(head)) is not None:
            remedy = other.remedy if other.anywhere else "save it as a CSV in UTF-8"
            raise InputError(f"{self.path} is not a CSV; it begins like {other.like}; {remedy}")
        elif b"\0" in head[:4]:
            raise UnreadableRowError(self.path, 1, "holds zero bytes, as text in UTF-16 without a byte order mark does")

    def _readline(self, number: int) -> str | bytes:
        with _unpacking(self.path, number):
            # A file given by mistake may have no line ends; it must not fill the memory.
            return self._file.readline(self.longest + 1)


@contextmanager
def _unpacking(path: Path, line: int) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = f"cannot be unpacked: the gzip stream is broken ({error})"
        raise UnreadableRowError(path, line, reason) from error
    except UnicodeError as error:
        raise UnreadableRowError(path, line, "breaks off, or is not the UTF-16 that its first bytes promise") from error


def _not_utf8(line: bytes, place: int) -> str:
    # Western programs' other encoding; every byte is a character in it.
    shown = line[max(0, place - _SHOWN) : place + _SHOWN].decode("latin-1").strip()
    return f"is not UTF-8 text (as Latin-1 it holds {shown!r})"


def numbered_rows(reader: Iterator[list[str]], lines: Lines) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV reader over `lines`, each with the number of its first line."""
    while True:
        first = lines.read + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            reason = f"is not a row of a CSV ({error})"
            if "new-line character" in str(error):
                reason = "holds a carriage return (CR) without a line feed (LF), as old Macs ended lines"
            raise UnreadableRowError(lines.path, first, reason) from error
        if row is None:
            return
        yield first, row


def csv_field(text: str) -> str:
    """`text` as a field of a CSV in UTF-8, in quotes if it needs them."""
    # A model file's JSON can hold halves of surrogate pairs; UTF-8 cannot.
    text = text.encode("utf-8", "backslashreplace").decode()
    # The csv module of Python 3.11 does not quote a lone carriage return.
    if any(sign in text for sign in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
