"""The 2019 challenge's CSV: one row for each class, with its best segments, best first."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from topgb.csv_rows import Lines, UnreadableRowError, csv_field, csv_rows, opened_csv
from topgb.errors import InputError
from topgb.files import atomic_write_named
from topgb.progress import SILENT, Progress, counting
from topgb.youtube8m.segments import CHALLENGE_K
from topgb.youtube8m.submission import SubmissionCheck

HEADER = "Class,Segments"
_INDEX = "Index"
# 100,000 segments of ids with some hundred characters.
_LONGEST_ROW = 1 << 25


def write_segments(path: Path, rows: Iterable[tuple[int, Sequence[str]]]) -> None:
    """Write a CSV of (class, segments' names best first), gzipped if `path` ends in .gz. Raises `TopgbError`."""
    with atomic_write_named(path) as file:
        file.write(f"{HEADER}\n".encode())
        for number, names in rows:
            file.write(f"{number},{csv_field(' '.join(names))}\n".encode())


def read_classes(path: Path, classes: int) -> list[int]:
    """The class numbers in the column `Index` of a CSV, ascending. Raises `InputError` where there are none, or wrong.

    The challenge's `segment_label_ids.csv` is such a file.
    """
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    if _INDEX not in header:
        raise InputError(f"{path} has no column {_INDEX!r}, which lists the classes to predict; name another file")
    column, found = header.index(_INDEX), set[int]()
    for line, row in rows:
        text = row[column].strip() if column < len(row) else ""
        if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < classes):
            raise InputError(f"{path}: line {line} names {text!r}, which is none of the {classes} classes of the model")
        found.add(int(text))
    if not found:
        raise InputError(f"{path} lists no class below its header; name another file")
    return sorted(found)


def is_segment_submission(path: Path) -> bool:
    """Whether the first line of a CSV is that of a submission of segments."""
    try:
        with opened_csv(path) as file:
            return next(Lines(path, file), "").rstrip("\r\n") == HEADER
    except UnreadableRowError:
        return False


def check_segments(path: Path, videos: Iterable[str] | None = None, progress: Progress = SILENT) -> SubmissionCheck:
    """Check a CSV of segments: classes, each once; names `id:start`, each once in a class, 100,000 at most.

    With `videos`, every segment must be of one of these. Faults are returned, not raised, one for each row at most.
    Raises `InputError` if the file cannot be read at all.
    """
    found, known = SubmissionCheck(), None if videos is None else set(videos)
    if known is not None:
        found.videos = len(known)
    lines: dict[int, int] = {}
    used: set[str] = set()
    try:
        for line, row in _rows(path, progress):
            found.rows += 1
            wrong = _wrong_class(row, line, lines) or _wrong_names(row[1], known, used)
            if wrong:
                found.add(line, None, wrong)
    except UnreadableRowError as error:
        found.add(error.line, None, f"the row {error.reason}; the rows from here on were not checked")
        return found
    if not found.rows:
        found.add(None, None, "there is no row below the header")
    if known is not None:
        found.missing = len(known - used)
    return found


def _rows(path: Path, progress: Progress) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header: a class, and the names of its segments in one text."""
    # A row may have several million characters, which csv refuses; rows take no more than one line here.
    report = counting(progress, "checking", "bytes")
    with opened_csv(path) as file:
        size = os.fstat(file.fileno()).st_size
        lines = Lines(path, file, longest=_LONGEST_ROW)
        next(lines, None)
        for line in lines:
            number, comma, names = line.rstrip("\r\n").partition(",")
            if len(names) > 1 and names[0] == names[-1] == '"':
                names = names[1:-1].replace('""', '"')
            yield lines.read, [number, names] if comma else [number]
            report(min(file.tell(), size), size)


def _wrong_class(row: list[str], line: int, lines: dict[int, int]) -> str | None:
    if len(row) != 2:
        return f"the row has {len(row)} columns instead of 2"
    text = row[0]
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        return f"{text[:60]!r} is no class, which is a whole number from 0"
    first = lines.setdefault(int(text), line)
    return None if first == line else f"class {text} has a row already, in line {first}"


def _wrong_names(text: str, known: set[str] | None, used: set[str]) -> str | None:
    names = text.split(" ")
    if not text:
        return "it has no segments"
    if len(names) > CHALLENGE_K:
        return f"it has {len(names):,} segments, and {CHALLENGE_K:,} is the most"
    seen: set[str] = set()
    for name in names:
        video, colon, start = name.rpartition(":")
        if not (video and colon and start.isascii() and start.isdecimal()):
            return f"{name[:60]!r} is no segment, which is id:start, with one space between any two"
        if name in seen:
            return f"segment {name[:60]} comes twice"
        if known is not None:
            if video not in known:
                return f"segment {name[:60]} is of a video that is not in the data"
            used.add(video)
        seen.add(name)
    return None
