"""Put together and check the challenge's CSV: one row per video, its best classes with their probabilities."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from unicodedata import normalize

from topgb.csv_rows import UnreadableRowError, csv_field, csv_rows
from topgb.errors import InputError, option
from topgb.files import atomic_write_named, refuse_existing
from topgb.progress import SILENT, Progress, counting

HEADER = "VideoId,LabelConfidencePairs"
MOST_PAIRS = 20
# Class 0 with probability 0 ranks below every true pair in GAP's ranking, so it cannot lower a score.
DUMMY_PAIRS = "0 0"
MOST_LISTED = 20

_COLUMNS = HEADER.split(",")
_NAMED_COLUMNS = [*_COLUMNS, "ClassNames"]
_NUMBER = re.compile(r"[0-9.eE+-]{1,40}")
_LONGEST_SHOWN = 60


@contextmanager
def fake_rows(path: Path, force: bool = False) -> Iterator[Callable[[str], None]]:
    """Write a CSV of the challenge; the yielded function adds a row with a dummy pair for an id.

    A row is `id,0 0` (2018: `badreplace.csv`, which held "dummy values"). The file is gzipped if `path` ends in .gz,
    and appears when the block ends without an error. Raises `InputError` if `path` exists and `force` is off,
    `TopgbError` if it cannot be written.
    """
    refuse_existing(path, force)
    with atomic_write_named(path) as file:
        file.write(f"{HEADER}\n".encode())
        yield lambda video_id: _write_row(file, video_id, DUMMY_PAIRS)


def concat(good: Path, fake: Path, out: Path, force: bool = False, progress: Progress = SILENT) -> tuple[int, int]:
    """Write the rows of `good`, then those of `fake`, under one header; return how many each has.

    2018: `submission_concat.py`. A file is gzipped if its name ends in .gz. Raises `InputError` if `good` or `fake` is
    no CSV of the challenge, if a video occurs twice, or if `out` exists and `force` is off; raises `TopgbError` if
    `out` cannot be written. Pairs are not checked here; `check` does that.
    """
    refuse_existing(out, force)
    # The line of each id, in two plain dicts, because there are a million videos.
    lines: list[tuple[Path, dict[str, int]]] = [(good, {}), (fake, {})]
    with atomic_write_named(out) as file:
        file.write(f"{HEADER}\n".encode())
        for part, own in lines:
            for line, row in _rows(part, counting(progress, f"reading {part.name}", "bytes")):
                if len(row) != 2:
                    raise InputError(f"{part}: line {line} has {_column_count(row)} instead of 2; mend it first")
                video_id = normalize("NFC", row[0])
                for path, known in lines:
                    if video_id in known:
                        raise InputError(
                            f"{part}: line {line} has video {_quoted(row[0])} again, after line {known[video_id]} of "
                            f"{path}; a video may have one row"
                        )
                own[video_id] = line
                _write_row(file, *row)
    return len(lines[0][1]), len(lines[1][1])


@dataclass(frozen=True)
class Problem:
    """A fault of a submission: `line` and `id` of its row, if it has one, and `what` is wrong."""

    line: int | None
    id: str | None
    what: str

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}: "
        video = "" if self.id is None else f"video {_quoted(self.id)}: "
        return f"{line}{video}{self.what}"


@dataclass
class SubmissionCheck:
    """The result of `check`.

    rows       rows below the header
    problems   the first `MOST_LISTED` faults
    count      number of all faults
    videos     videos of the data, or None if the data was not compared
    missing    videos of the data without a row
    unknown    rows of videos that are not in the data
    """

    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    count: int = 0
    videos: int | None = None
    missing: int = 0
    unknown: int = 0

    def add(self, line: int | None, video_id: str | None, what: str) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.count += 1
        if len(self.problems) < MOST_LISTED:
            self.problems.append(Problem(line, video_id, what))


def check(path: Path, videos: Iterable[str] | None = None, progress: Progress = SILENT) -> SubmissionCheck:
    """Check a CSV of the challenge, gzipped if its name ends in .gz, and that it has a row for each id of `videos`.

    The file needs the header, and in each row an id that no other row has, and 1 to 20 pairs of different classes and
    probabilities from 0 to 1, the greatest first. Faults are returned, not raised, at most one per row. `videos` may
    hold an id twice. If a row cannot be read, the rows after it are not checked and `videos` is not compared. Raises
    `InputError` if the file cannot be read at all.
    """
    found = SubmissionCheck()
    lines: dict[str, int] = {}
    last, columns = 1, 2
    try:
        rows = csv_rows(path, counting(progress, "checking", "bytes"))
        for line, row in rows:
            last = line
            if line == 1:
                columns = _check_header(row, found)
            else:
                _check_row(line, row, columns, lines, found)
    except UnreadableRowError as error:
        if error.line == 1:
            raise
        found.add(error.line, None, f"the row {error.reason}; the rows from here on were not checked")
        return found
    if not found.rows:
        found.add(None, None, "there is no row below the header")
    if videos is not None:
        _compare_videos(videos, lines, bytearray(last + 1), found)
    return found


def _compare_videos(videos: Iterable[str], lines: dict[str, int], seen: bytearray, found: SubmissionCheck) -> None:
    """Add the missing rows, and the rows of other videos, to `found`. `seen` is one byte per line, all 0."""
    missing: set[str] = set()
    found.videos = 0
    for video_id in (normalize("NFC", video) for video in videos):
        line = lines.get(video_id)
        if line is None:
            if video_id not in missing:
                missing.add(video_id)
                found.videos += 1
                found.add(None, video_id, "it is in the data, but has no row")
        elif not seen[line]:
            seen[line] = 1
            found.videos += 1
    found.missing = len(missing)
    for video_id, line in lines.items():
        if not seen[line]:
            found.unknown += 1
            found.add(line, video_id, "it is not in the data")


def _check_header(row: list[str], found: SubmissionCheck) -> int:
    """Check the first line; return the number of columns that the rows should have."""
    if row == _NAMED_COLUMNS:
        advice = f"predict without {option('names', True)}, so that it is {HEADER}"
        found.add(1, None, f"there is a column of class names; {advice}")
        return 3
    if row != _COLUMNS:
        found.add(1, None, f"the header is {_quoted(','.join(row))}, not {HEADER}")
    return 2


def _check_row(line: int, row: list[str], columns: int, lines: dict[str, int], found: SubmissionCheck) -> None:
    found.rows += 1
    if len(row) != columns:
        found.add(line, row[0] if row else None, f"the row has {_column_count(row)} instead of {columns}")
        if not row:
            return
    first = lines.setdefault(normalize("NFC", row[0]), line)
    if len(row) != columns:
        return
    if not row[0]:
        found.add(line, None, "the row has no id")
    elif first != line:
        found.add(line, row[0], f"it has a row already, in line {first}")
    elif wrong := _wrong_pairs(row[1]):
        found.add(line, row[0], wrong)


def _wrong_pairs(text: str) -> str | None:
    """The fault of a row's pairs in words, or None."""
    values = text.split(" ")
    if not text:
        return "it has no pairs"
    if len(values) % 2:
        return f"its {len(values)} values are no pairs of a class and a probability, with one space between any two"
    if len(values) > 2 * MOST_PAIRS:
        return f"it has {len(values) // 2} pairs, and {MOST_PAIRS} is the most"
    classes: set[int] = set()
    before, before_text = float("inf"), ""
    for number, probability in zip(values[::2], values[1::2], strict=True):
        if not (number.isascii() and number.isdecimal() and len(number) <= 10):
            return f"{_quoted(number)} is no class, which is a whole number from 0"
        if int(number) in classes:
            return f"class {number} comes twice"
        classes.add(int(number))
        value = _parse_probability(probability)
        if not 0 <= value <= 1:
            return f"{_quoted(probability)}, of class {number}, is no probability from 0 to 1"
        if value > before:
            return f"its pairs are not sorted: {probability} of class {number} comes after {before_text}"
        before, before_text = value, probability
    return None


def _parse_probability(text: str) -> float:
    # Python's own syntax also allows underscores and words.
    if not _NUMBER.fullmatch(text):
        return -1.0
    try:
        return float(text)
    except ValueError:
        return -1.0


def _rows(path: Path, on_progress: Callable[[int, int], None]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV of the challenge. Raises `InputError` if it has another header."""
    rows = csv_rows(path, on_progress)
    _, header = next(rows, (1, []))
    if header != _COLUMNS:
        hint = f"; predict without {option('names', True)}" if header == _NAMED_COLUMNS else ""
        raise InputError(f"{path} does not begin with the line {HEADER}, so it is no submission{hint}")
    return rows


def _write_row(file: BinaryIO, video_id: str, pairs: str) -> None:
    file.write(f"{csv_field(video_id)},{csv_field(pairs)}\n".encode())


def _column_count(row: list[str]) -> str:
    return f"{len(row)} column{'' if len(row) == 1 else 's'}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")
