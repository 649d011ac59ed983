"""Targets of models and their checks: labels are class numbers, each once, and a teacher's scores are probabilities."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from topgb.errors import InputError, option, printable
from topgb.features import MOST_VALUES
from topgb.records.framing import Place
from topgb.records.layout import LabelUse

if TYPE_CHECKING:
    import torch

LABELS_KEY = "labels"
# Names of labels in other people's files, words of such names, and the beginning of the names of what says when they
# hold; none of these is an input of a model. Some inputs have `class` in their name (class_token).
_LABEL_NAMES = {"class", "classes", "ytrue"}
_LABEL_WORDS = {"label", "labels", "target", "targets", "annotation", "annotations", "gt", "groundtruth"}
_LABEL_WORDS |= {"onehot", "multihot"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_SEGMENT_PREFIX = "segment_"
# So many videos of two classes that all show both are taken for 0/1 vectors.
LEAST_VECTORS = 10
# The bits of 1 in float16: those of a number from 0 to 1 are at most these, read as an integer.
_HALF_ONE = 0x3C00
_BLOCK = 1 << 20
WRITE_NUMBERS = "write the classes' numbers"
LABELS_APART = "read labelled and unlabelled records apart"


class TeacherScores(Protocol):
    """A folder of a teacher's scores for V classes, as `topgb.records.teacher.Teacher` reads it."""

    folder: Path

    @property
    def classes(self) -> int: ...
    def rows(self, videos: Sequence[str]) -> "torch.Tensor": ...


# The source of a teacher's scores: a folder of `topgb distill`, or the records themselves.
TeacherSource = TeacherScores | Literal["records"]


class Targets(NamedTuple):
    """Targets in batches, for a model to learn or to be scored by.

    labels   without them, labels in the records are ignored; with "check", too, but they must be class numbers
    teacher  the source of a teacher's scores, or None for batches without scores
    """

    labels: LabelUse = True
    teacher: TeacherSource | None = None


LABELS = Targets()


def is_label_key(name: str) -> bool:
    """Whether `name` says that labels stand there, of the whole video or of segments."""
    words = [word.lower() for word in _WORD.findall(name)]
    if name.startswith(_SEGMENT_PREFIX) or "".join(words) in _LABEL_NAMES:
        return True
    return not _LABEL_WORDS.isdisjoint({*words, *map("".join, pairwise(words))})


def label_list(context: Any, place: Place, classes: int | None = None) -> list[int] | None:
    """The class numbers in a record's `Features` message, as stored, or None if it has no labels.

    Raises `RecordError` if the labels are not integers, if no model could have such a class, or if a class occurs
    twice, and `InputError` if a class is none of the `classes` (None: any).
    """
    stored = context.feature.get(LABELS_KEY)
    if stored is None:
        return None
    # Nearly every record has some: look at them first.
    if labels := list(stored.int64_list.value):
        # A vector of 0 and 1 over three classes or more holds one of them twice.
        if len(set(labels)) < len(labels):
            raise place.unusable(_repeated(labels))
        if min(labels) < 0:
            raise place.unusable(f"labels hold {min(labels)}, the number of no class; {WRITE_NUMBERS} alone, from 0")
        if max(labels) >= (classes or MOST_VALUES):
            raise _outside(labels, classes, place)
        return labels
    kind = stored.WhichOneof("kind")
    if kind is None:
        return None
    if not getattr(stored, kind).value:
        # An empty list may have any kind: NumPy makes floats of it.
        return []
    if kind == "bytes_list":
        first = bytes(stored.bytes_list.value[0]).decode(errors="replace")[:40]
        raise place.unusable(
            f"labels hold bytes ({printable(first)!r} …), not integers; {WRITE_NUMBERS}, as an int64 list"
        )
    raise place.unusable(_floats(list(stored.float_list.value)))


@dataclass
class LabelTally:
    """Counts of label lists.

    lists   videos with a list, empty ones included
    empty   those with an empty list
    pairs   those whose labels are 0 and 1: both of two classes, or the 0/1 vector of one of them
    """

    lists: int = 0
    empty: int = 0
    pairs: int = 0

    def add(self, labels: list[int]) -> None:
        self.lists += 1
        self.empty += not labels
        self.pairs += sorted(labels) == [0, 1]

    def merge(self, other: "LabelTally") -> None:
        self.lists += other.lists
        self.empty += other.empty
        self.pairs += other.pairs

    @property
    def fault(self) -> str | None:
        """The fault of the lists as a whole, in words, or None."""
        return _vectors(self.lists) if self.lists == self.pairs >= LEAST_VECTORS else None


def check_label_counts(counts: np.ndarray, videos: int, where: str, purpose: str, remedy: str = "") -> None:
    """Raise `InputError` if the labels of `videos` labelled videos, by class int64 [V], can serve no `purpose`.

    Either there is none, or every video has all of the classes: then any model scores 1.0, and none can learn. Where
    there are two classes, 0/1 vectors read as class numbers look like that.
    `remedy` is another one where there is none.
    """
    if not counts.any():
        raise InputError(
            f"the label lists of {where} are all empty, so there is nothing to {purpose}; {WRITE_NUMBERS} of each video"
            f"{remedy}"
        )
    if len(counts) > 1 and videos >= LEAST_VECTORS and (counts == videos).all():
        if len(counts) == 2:
            raise InputError(f"{where}: {_vectors(videos)}")
        raise InputError(
            f"{where}: each of the {videos:,} videos has all {len(counts):,} classes as labels, so there is nothing to "
            f"{purpose}; {WRITE_NUMBERS} that it shows alone"
        )


def first_improbable(values: np.ndarray, most: float = 1.0) -> int | None:
    """The position in `values` (float, flattened) of the first that is not from 0 to `most`, or None; NaN is not."""
    # Folders hold billions of values: comparing integers takes a thirtieth of the time.
    if values.dtype == np.float16 and most == 1.0 and values.view(np.uint16).max(initial=0) <= _HALF_ONE:
        return None
    flat = values.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        # This form of the comparison refuses NaN too.
        wrong = np.flatnonzero(~((block >= 0) & (block <= most)))
        if len(wrong):
            return start + int(wrong[0])
    return None


def or_teacher_alone(teacher: object | None) -> str:
    """Another remedy for missing labels, if a `teacher` is learned from beside them; else nothing."""
    return "" if teacher is None else f", or learn from the teacher alone with {option('distill_weight', 1)}"


def label_advice(context: Any | None) -> str:
    """The remedy for records without labels, after a look at the `Features` message of one among them.

    Names the keys that may hold the labels instead.
    """
    features = {} if context is None else context.feature
    if LABELS_KEY in features and features[LABELS_KEY].WhichOneof("kind"):
        return LABELS_APART
    found = [key for key in sorted(features) if features[key].WhichOneof("kind") == "int64_list"]
    named = next((key for key in sorted(features) if is_label_key(key) and key not in found), None)
    if not found and named is not None:
        return (
            f"topgb reads the key {LABELS_KEY!r}, and here is {printable(repr(named))}; {WRITE_NUMBERS} under that key"
        )
    if not found:
        return "name labelled records"
    keys = printable(" and ".join(map(repr, found)))
    return f"topgb reads the key {LABELS_KEY!r}, and here are integers under {keys}; rename it if these are the labels"


def _outside(labels: list[int], classes: int | None, place: Place) -> InputError:
    if classes is None:
        return place.unusable(
            f"label {max(labels)} is outside the classes that a model can have (0 to {MOST_VALUES - 1:,}); "
            f"{WRITE_NUMBERS}, counted from 0"
        )
    label = next(label for label in labels if label >= classes)
    return InputError(
        f"{place}: label {label} is outside the {classes} classes (0 to {classes - 1}); "
        "the model or recipe needs as many classes as the data has" + (", numbered from 0" if label == classes else "")
    )


def _vectors(videos: int) -> str:
    return (
        f"the labels of all {videos:,} videos are 0 and 1, a 0/1 vector of two classes; {WRITE_NUMBERS}: [1] for the "
        "vector [0, 1]"
    )


def _floats(values: list[float]) -> str:
    if len(values) > 1 and set(values) <= {0.0, 1.0}:
        return f"labels hold floats, a 0/1 vector; {_instead(values)}, as an int64 list"
    return f"labels hold floats, not integers; {WRITE_NUMBERS}, as an int64 list"


def _repeated(labels: list[int]) -> str:
    if set(labels) <= {0, 1}:
        return f"labels hold a 0/1 vector of {len(labels)} values; {_instead(labels)}"
    twice = Counter(labels).most_common(1)[0][0]
    return f"labels hold the class {twice} more than once; {WRITE_NUMBERS}, each once"


def _instead(vector: list[int] | list[float]) -> str:
    classes = np.flatnonzero(vector).tolist()
    shown = ", ".join(map(str, classes[:5])) + (", …" if len(classes) > 5 else "")
    return f"{WRITE_NUMBERS}, here [{shown}]"
