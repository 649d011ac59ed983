"""Labels by class name: read them from a CSV, and number the classes."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from topgb.csv_rows import filled_rows
from topgb.errors import InputError

SEPARATOR = ";"
Labels = dict[str, tuple[str, ...]]


def split_labels(text: str) -> tuple[str, ...]:
    """The class names in `text`, each once; semicolons separate them."""
    names = (name.strip() for name in text.split(SEPARATOR))
    # Many videos have the same name: keep one string for all of them.
    return tuple(dict.fromkeys(sys.intern(name) for name in names if name))


def read_labels(path: Path) -> Labels:
    """Read the class names of each id from a CSV.

    The first line holds the column names, in any case and order, with `id` and `labels` among them. A cell of labels
    holds names separated by semicolons, or nothing for a video that shows none of the classes; rows of one id add up.
    Takes about 150 bytes of memory per video. Raises `InputError` if the file is not such a CSV.
    """
    rows = filled_rows(path)
    _, header = next(rows, (1, []))
    columns = [column.strip().lower() for column in header]
    for column in ("id", "labels"):
        if columns.count(column) != 1:
            wrong = "no column" if column not in columns else "two columns"
            raise InputError(
                f"{path} has {wrong} {column!r} in its first line; labels are a CSV with the columns id and labels"
            )
    identity, names = columns.index("id"), columns.index("labels")
    labels: Labels = {}
    for line, row in rows:
        if len(row) != len(columns):
            raise InputError(
                f"{path}: line {line} has {len(row)} cells, the first line {len(columns)}; separate several labels by "
                "semicolons, and put names with commas in quotes"
            )
        video_id = row[identity].strip()
        if not video_id:
            raise InputError(f"{path}: line {line} has an empty id; give each row the id of a video")
        found = split_labels(row[names])
        earlier = labels.get(video_id, ())
        labels[video_id] = earlier + tuple(name for name in found if name not in earlier)
    if not labels:
        raise InputError(f"{path} labels no video; below its first line each video needs a row")
    return labels


def class_names(counts: Counter[str]) -> tuple[str, ...]:
    """The names in `counts`, most frequent first; names of one frequency are sorted by name."""
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


def class_numbers(names: Sequence[str], where: str) -> dict[str, int]:
    """The number of each class by name. Raises `InputError` if two classes have the same name."""
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        if name in numbers:
            raise InputError(
                f"{where} calls both class {numbers[name]} and class {number} {name!r}; labels by name need other names"
            )
        numbers[name] = number
    return numbers
