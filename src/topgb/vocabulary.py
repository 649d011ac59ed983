"""Class names: the CSV that goes with a data set."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

from topgb.csv_rows import csv_field
from topgb.csv_tables import read_table
from topgb.errors import InputError
from topgb.files import atomic_write, refuse_existing

_INDEX = "index"
_NAMES = ("name", "display_name")
_IDS = ("knowledgegraphid", "mid")


@dataclass(frozen=True)
class Classes:
    """A data set's classes by number: their `names`, and their knowledge graph ids (empty where a class has none)."""

    names: tuple[str, ...]
    ids: tuple[str, ...]


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """The names of a data set's classes, by class number. See `read_classes`."""
    return read_classes(path).names


def read_classes(path: Path) -> Classes:
    """Read a data set's classes from a CSV, in Unicode's form NFC.

    The CSV begins with a line of column names, in any case and order, and has one row per class, in any order. It needs
    the columns `Index` and `Name`, as in YouTube-8M's vocabulary.csv, or AudioSet's `index` and `display_name`; it may
    have others. A class without a name gets its knowledge graph id (`KnowledgeGraphId`, `mid`), else its number. Raises
    `InputError` if the file is not such a CSV, or the numbers are not 0 … V − 1, each once.
    """
    table = read_table(path, (_INDEX, *_NAMES, *_IDS))
    index, name, identity = table.find((_INDEX,)), table.find(_NAMES), table.find(_IDS)
    if index is None or name is None:
        missing = "Index" if index is None else "Name"
        raise InputError(
            f"{path} has no column {missing} in its first line, which is {table.seen()}; class names are a CSV with "
            "the columns Index and Name"
        )
    named: dict[int, tuple[str, str]] = {}
    lines: dict[int, int] = {}
    for line, row in table.rows:
        number = _number(path, line, _cell(row, index))
        if number in named:
            raise InputError(f"{path}: line {line} names class {number} again; line {lines[number]} did already")
        named[number] = _cell(row, name) or _cell(row, identity) or str(number), _cell(row, identity)
        lines[number] = line
    if not named:
        raise InputError(f"{path} names no class; below its first line each class needs a row")
    greatest = max(named)
    if greatest != len(named) - 1:
        missing_number = next(number for number in range(greatest) if number not in named)
        raise InputError(
            f"{path}: line {lines[greatest]} names class {greatest}, but no line names class {missing_number}; "
            "classes are numbered from 0 without gaps"
        )
    names, ids = zip(*(named[number] for number in range(len(named))), strict=True)
    return Classes(names, ids)


def write_vocabulary(
    path: Path, names: Sequence[str], counts: Sequence[int] | None = None, force: bool = False
) -> None:
    """Write a CSV that `read_vocabulary` reads: Index, TrainVideoCount (left out without `counts`) and Name.

    Raises `InputError` if `path` exists and `force` is off, `TopgbError` if it cannot be written.
    """
    refuse_existing(path, force)
    with atomic_write(path) as file:
        file.write(vocabulary_csv(names, counts))


def vocabulary_csv(names: Sequence[str], counts: Sequence[int] | None = None) -> bytes:
    """The bytes that `write_vocabulary` writes."""
    text = io.StringIO()
    text.write("Index,Name\n" if counts is None else "Index,TrainVideoCount,Name\n")
    for index, name in enumerate(names):
        text.write(f"{index},{csv_field(name)}\n" if counts is None else f"{index},{counts[index]},{csv_field(name)}\n")
    return text.getvalue().encode()


def check_names(names: Sequence[str], classes: int) -> None:
    """Raise `InputError` unless there are as many names as classes."""
    if len(names) != classes:
        raise InputError(
            f"{len(names):,} class names were given for {classes:,} classes; give the vocabulary of this data set"
        )


def refuse_other_names(first: tuple[str, Sequence[str] | None], second: tuple[str, Sequence[str] | None]) -> None:
    """Raise `InputError` if two models, each given by its place and its class names if it has some, differ in those."""
    (where, ours), (other_place, theirs) = first, second
    pairs = zip(ours or (), theirs or (), strict=False)
    number, one, other = next(((n, one, other) for n, (one, other) in enumerate(pairs) if one != other), (0, "", ""))
    if one != other:
        raise InputError(
            f"class {number} is {one!r} in {where} and {other!r} in {other_place}; name models of the same classes"
        )


def names_digest(names: Sequence[str] | None) -> str | None:
    """A hash of class names in their order, None without names."""
    if names is None:
        return None
    return sha256(json.dumps([normalize("NFC", name) for name in names]).encode()).hexdigest()


def _cell(row: list[str], column: int | None) -> str:
    return "" if column is None or column >= len(row) else row[column].strip()


def _number(path: Path, line: int, text: str) -> int:
    # A longer number cannot be a class, and Python refuses to read numbers of thousands of digits.
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        shown = text if len(text) <= 30 else text[:30] + "…"
        raise InputError(f"{path}: line {line} has the Index {shown!r}; it must be a class number, from 0")
    return int(text)
