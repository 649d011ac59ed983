"""Labels by class name: read them from a CSV, split them, and number the classes."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from topgb.csv_tables import Table, read_table
from topgb.errors import InputError, option
from topgb.vocabulary import Classes

SEPARATOR = ";"
Labels = dict[str, tuple[str, ...]]
# The first of these that a CSV has is taken.
_IDS = ("id", "ytid", "path")
# The columns that may hold labels, each with the separator of several labels in it. AudioSet's class ids have no
# commas.
_LABELS = {"labels": SEPARATOR, "positive_labels": ","}
# An item of a list as Python or JSON writes it: in quotes, with quotes and backslashes escaped, or bare. Nothing is
# tried twice, or a long cell would take hours.
_ITEM = re.compile(
    r"""\s*+(?:
        '((?:[^'\\]|\\['"\\])*+)'
        | "((?:[^"\\]|\\['"\\])*+)"
        | ([^\s,'"\[\](){}\\][^,'"\[\](){}\\]*+)
    )\s*+(?:,|$)""",
    re.VERBOSE,
)
_BRACKETS = ("[]", "()", "{}")
_QUOTES = "\"'`"
_BITS = {"0", "1", "0.0", "1.0", "0.", "1.", "-1", "+1", "-1.0", "+1.0", "-1.", "+1.", "false", "true"}
_BITS |= {"f", "t", "no", "yes", "n", "y"}
_NUMBER = re.compile(r"[-+]?(?:\d++\.?\d*+|\.\d++)(?:e[-+]?\d++)?", re.IGNORECASE)


def split_labels(text: str, separator: str | None = SEPARATOR) -> tuple[str, ...]:
    """The class names in `text`, each once, in Unicode's form NFC, with `separator` between them (None: one name).

    A text in quotes of its own stays one name, which `find_fault` refuses, and so does a 0/1 vector.

    With commas, lists as Python and JSON write them are read too: `['cat', 'dog']`.
    """
    text = normalize("NFC", text).strip()
    if separator is None or is_quoted(text):
        items = [text]
    elif separator == "," and is_bracketed(text):
        items = _list_items(text)
    else:
        items = text.split(separator)
    names = [name.strip() for name in items]
    if is_vector(names):
        return (text,)
    # Many videos have the same name: keep one string for all of them.
    return tuple(dict.fromkeys(sys.intern(name) for name in names if name))


def is_vector(items: Sequence[str]) -> bool:
    """Whether `items` are one value for each class (0/1, scores, counts): bits or numbers, one of them repeated.

    A list of classes has each once.
    """
    return len(set(items)) < len(items) and (holds_bits(items) or all(map(_NUMBER.fullmatch, items)))


def holds_bits(items: Iterable[str]) -> bool:
    """Whether `items` are 0 and 1, -1 and 1, truths, or yes and no."""
    return all(item.casefold() in _BITS for item in items)


def is_bracketed(text: str) -> bool:
    """Whether `text` is enclosed in brackets, as lists are."""
    return any(text.startswith(pair[0]) and text.endswith(pair[1]) for pair in _BRACKETS)


def is_quoted(text: str) -> bool:
    """Whether `text` begins and ends with the same quotation mark."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES


def _list_items(text: str) -> list[str]:
    """The items of a list in brackets; `text` itself, which `find_fault` refuses, if it is not understood."""
    inner, items, place = text[1:-1].strip(), [], 0
    while place < len(inner):
        found = _ITEM.match(inner, place)
        if found is None:
            return [text]
        single, double, bare = found.groups()
        items.append(bare.strip() if bare is not None else re.sub(r"\\(.)", r"\1", single or double or ""))
        place = found.end()
    return items


def read_labels(path: Path, separator: str | None = None) -> Labels:
    """Read the class names of each id from a CSV (see `csv_tables.py`), in Unicode's form NFC.

    The first line holds the column names, in any case and order, with `id` (or `path`) and `labels` among them, or
    AudioSet's `YTID` and `positive_labels`. A cell of labels holds names with `separator` between them (None:
    semicolons, or AudioSet's commas), or nothing for a video that shows none of the classes; rows of one id add up. If
    the separator separates columns too and the labels are the last column, all further cells are labels. Takes about
    150 bytes of memory per video. Raises `InputError` if the file is not such a CSV.
    """
    table = read_table(path, (*_IDS, *_LABELS))
    identity, names = _columns(path, table)
    between = _LABELS[table.columns[names]] if separator is None else separator
    open_ended = between == table.delimiter and names == len(table.columns) - 1
    labels: Labels = {}
    for line, row in table.rows:
        # Spreadsheets write empty cells behind the last column.
        while len(row) > len(table.columns) and not row[-1].strip():
            row.pop()
        if len(row) != len(table.columns) and not (open_ended and len(row) > names):
            last = names == len(table.columns) - 1 and len(row) > len(table.columns)
            hint = f", or give {option('separator', table.delimiter)} if that separates labels too" if last else ""
            raise InputError(
                f"{path}: line {line} has {len(row)} cells, the first line {len(table.columns)}; separate several "
                f"labels by semicolons, and put names with commas in quotes{hint}"
            )
        video_id = row[identity].strip()
        if not video_id:
            raise InputError(f"{path}: line {line} has an empty id; give each row the id of a video")
        found = split_labels(between.join(row[names:]) if open_ended else row[names], between)
        earlier = labels.get(video_id, ())
        labels[video_id] = earlier + tuple(name for name in found if name not in earlier)
    if not labels:
        raise InputError(f"{path} labels no video; below its first line each video needs a row")
    return labels


def _columns(path: Path, table: Table) -> tuple[int, int]:
    """The numbers of the columns of ids and of labels."""
    found = []
    for alternatives in (_IDS, tuple(_LABELS)):
        first = next((at for name in alternatives if (at := table.find((name,))) is not None), None)
        name = alternatives[0] if first is None else table.columns[first]
        if first is None or table.columns.count(name) != 1:
            wrong = "no column" if first is None else "two columns"
            raise InputError(
                f"{path} has {wrong} {name!r} in its first line, which is {table.seen()}; labels are a CSV with the "
                "columns id (or path) and labels"
            )
        found.append(first)
    return found[0], found[1]


def class_names(counts: Counter[str]) -> tuple[str, ...]:
    """The names in `counts`, most frequent first; names of one frequency are sorted by name."""
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


@dataclass(frozen=True)
class KnownClasses:
    """The classes of a vocabulary: their `numbers` by name, and their names by other ids that labels may use."""

    numbers: dict[str, int]
    aliases: dict[str, str] = field(default_factory=dict)


def known_classes(classes: Classes, where: str) -> KnownClasses:
    """The classes by name. Raises `InputError` if two of them have the same name."""
    numbers: dict[str, int] = {}
    for number, name in enumerate(classes.names):
        if name in numbers:
            raise InputError(
                f"{where} calls both class {numbers[name]} and class {number} {name!r}; labels by name need other names"
            )
        numbers[name] = number
    pairs = zip(classes.ids, classes.names, strict=True)
    return KnownClasses(numbers, {identity: name for identity, name in pairs if identity and identity not in numbers})
