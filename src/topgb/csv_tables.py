"""CSVs that people and their programs write, with a line of column names: find out how they are written, and read them.

Commas, semicolons, tabs or bars separate columns; the text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. Lines
that begin with # before the table are comments, as is Excel's `sep=;`; AudioSet's column names are the last of them.
"""

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from topgb.csv_rows import Lines, numbered_rows, opened_csv
from topgb.errors import InputError

_DELIMITERS = (",", ";", "\t", "|")
# Excel's own first line, which names the delimiter.
_DELIMITER_LINE = re.compile(r'"?sep=.?"?', re.IGNORECASE)
_LONGEST_SHOWN = 80
# Comments and empty lines before the column names; a small compressed file may hold a billion of them.
_MOST_LINES_BEFORE = 10_000


@dataclass(frozen=True)
class Table:
    """A CSV's column names, in lower case and trimmed, its `delimiter`, and its rows below, each with its line number.

    All text is in Unicode's form NFC. Rows without any text are left out.
    """

    columns: list[str]
    delimiter: str
    rows: Iterator[tuple[int, list[str]]]

    def find(self, names: Collection[str]) -> int | None:
        """The number of the first column that has one of these names, or None."""
        return next((number for number, column in enumerate(self.columns) if column in names), None)

    def seen(self) -> str:
        """The column names as a message shows them."""
        text = ", ".join(self.columns)
        return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")


def read_table(path: Path, names: Collection[str]) -> Table:
    """Open a CSV, plain or gzipped, that should have columns of some of the `names`, in lower case.

    Raises `InputError` if it cannot be opened or its first lines cannot be read. Its rows raise `UnreadableRowError`.
    """
    comments, delimiter, columns = _look(path, names)
    rows = _filled_rows(path, comments, delimiter)
    if columns is None:
        _, columns = next(rows, (1, []))
        if not columns:
            raise InputError(f"{path} holds no text; name a CSV that begins with a line of column names")
    return Table([normalize("NFC", column).strip().lower() for column in columns], delimiter, rows)


def _look(path: Path, names: Collection[str]) -> tuple[int, str, list[str] | None]:
    """The number of lines of comments, the delimiter, and the column names if they are in a comment."""
    comments, comment, first = 0, "", ""
    with opened_csv(path) as file:
        lines = Lines(path, file, marked=True)
        for line in lines:
            if lines.read > _MOST_LINES_BEFORE:
                raise InputError(f"{path} has no column names in its first {_MOST_LINES_BEFORE:,} lines; name a CSV")
            if lines.read == 1 and _DELIMITER_LINE.fullmatch(line.rstrip()):
                comments = 1
            elif line.startswith("#"):
                comments, comment = lines.read, line.lstrip("# ")
            elif line.strip():
                first = line
                break
    known, delimiter, columns = _split_names(comment, names)
    in_first, first_delimiter, _ = _split_names(first, names)
    return (comments, delimiter, columns) if known > in_first else (comments, first_delimiter, None)


def _split_names(line: str, names: Collection[str]) -> tuple[int, str, list[str]]:
    """How many columns that `line` names are in `names`, the delimiter that gives the most, and the columns."""
    best: tuple[int, str, list[str]] = (0, _DELIMITERS[0], [])
    for delimiter in _DELIMITERS:
        try:
            columns = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            continue
        known = sum(column.strip().lower() in names for column in columns)
        if known > best[0]:
            best = known, delimiter, columns
    return best


def _filled_rows(path: Path, comments: int, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    with opened_csv(path) as file:
        lines = Lines(path, file, marked=True)
        for _ in zip(range(comments), lines, strict=False):
            pass
        # A blank before a quoted cell is no part of it.
        reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
        for line, row in numbered_rows(reader, lines):
            if any(cell.strip() for cell in row):
                yield line, [normalize("NFC", cell) for cell in row]
