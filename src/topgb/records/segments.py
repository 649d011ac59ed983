"""Rated segments of YouTube-8M's 2019 records: their keys, their checks, and how they are encoded.

A record lists its ratings in four parallel lists of its context. A segment is 5 frames from its start on; one rating
says whether one class occurs in one segment. All other pairs of a segment and a class are unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from topgb.features import MOST_VALUES
from topgb.records.framing import Place
from topgb.records.protos import Features

SEGMENT_FRAMES = 5
STARTS_KEY, ENDS_KEY = "segment_start_times", "segment_end_times"
CLASSES_KEY, SCORES_KEY = "segment_labels", "segment_scores"
# A score from here on says that the class occurs; the challenge's scores are 0 and 1.
LEAST_POSITIVE = 0.5
_INTEGERS = (STARTS_KEY, ENDS_KEY, CLASSES_KEY)
_MOST_START = MOST_VALUES - SEGMENT_FRAMES
_REMEDY = "write one start, end, label and score for each rating"


class Ratings(NamedTuple):
    """The ratings of a record, in the order stored.

    starts    int64 [N], first frame of the rated segment
    classes   int64 [N], the class that was asked for
    positive  bool [N], whether it occurs
    """

    starts: np.ndarray
    classes: np.ndarray
    positive: np.ndarray


@dataclass
class RatingTally:
    """Counts of ratings: records that have some, segments, ratings, and those that say that the class occurs."""

    records: int = 0
    segments: int = 0
    ratings: int = 0
    positive: int = 0

    def add(self, ratings: Ratings) -> None:
        self.records += 1
        self.segments += len(set(ratings.starts.tolist()))
        self.ratings += len(ratings.starts)
        self.positive += int(ratings.positive.sum())

    def merge(self, other: "RatingTally") -> None:
        self.records += other.records
        self.segments += other.segments
        self.ratings += other.ratings
        self.positive += other.positive


def read_ratings(context: Any, place: Place, classes: int | None = None) -> Ratings | None:
    """The ratings in a record's `Features` message, or None if it has no starts, no labels or no scores.

    Raises `UnfitRecordError` where the lists differ in length or kind, a segment is not 5 frames from 0 or later, a
    class is none of the `classes` (None: any), a score is not from 0 to 1, or a pair is rated both ways.
    """
    stored = {key: _values(context, key, place) for key in (*_INTEGERS, SCORES_KEY)}
    present = {key: values for key, values in stored.items() if values is not None}
    ends, needed = present.get(ENDS_KEY), (STARTS_KEY, CLASSES_KEY, SCORES_KEY)
    if not all(present.get(key) for key in needed):
        return None
    lengths = {key: len(present[key]) for key in needed} | ({} if ends is None else {ENDS_KEY: len(ends)})
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} {count}" for key, count in lengths.items())
        raise place.unfit(f"its ratings are lists of unequal length ({counts}); {_REMEDY}")
    starts, labels, scores = (present[key] for key in needed)
    for start, end in zip(starts, [one + SEGMENT_FRAMES for one in starts] if ends is None else ends, strict=True):
        if not 0 <= start <= _MOST_START or end != start + SEGMENT_FRAMES:
            raise place.unfit(
                f"it rates a segment from {start} to {end}; a segment has {SEGMENT_FRAMES} frames, from 0 on"
            )
    wrong = next((label for label in labels if not 0 <= label < (classes or MOST_VALUES)), None)
    if wrong is not None:
        bound = "a class number" if classes is None else f"one of the {classes} classes (0 to {classes - 1})"
        raise place.unfit(f"it rates a segment for {wrong}, which is not {bound}; leave the rating out")
    if not all(0 <= score <= 1 for score in scores):
        raise place.unfit("a rating's score is not from 0 to 1; write 1 where the class occurs and 0 where not")
    positive = [score >= LEAST_POSITIVE for score in scores]
    if len(set(zip(starts, labels, positive, strict=True))) > len(set(zip(starts, labels, strict=True))):
        raise place.unfit("it rates a segment both ways for the same class; leave one rating out")
    return Ratings(np.array(starts, np.int64), np.array(labels, np.int64), np.array(positive, np.bool_))


def rating_entries(ratings: Ratings) -> bytes:
    """The ratings as entries of an encoded `Features` message; the same input gives the same bytes."""
    encoded = []
    # Protobuf does not promise an order of a map's entries, so each is serialised by itself.
    for key, values in (
        (STARTS_KEY, ratings.starts),
        (ENDS_KEY, ratings.starts + SEGMENT_FRAMES),
        (CLASSES_KEY, ratings.classes),
    ):
        message = Features()
        message.feature[key].int64_list.value.extend(values.tolist())
        encoded.append(message.SerializeToString())
    message = Features()
    message.feature[SCORES_KEY].float_list.value.extend(ratings.positive.astype(float).tolist())
    return b"".join([*encoded, message.SerializeToString()])


def segment_name(video: str, start: int) -> str:
    """The name of a segment in a submission: `id:start`."""
    return f"{video}:{start}"


def _values(context: Any, key: str, place: Place) -> Sequence[Any] | None:
    stored = context.feature.get(key)
    kind = stored.WhichOneof("kind") if stored is not None else None
    if kind is None:
        return None
    wanted = "float_list" if key == SCORES_KEY else "int64_list"
    if kind != wanted and getattr(stored, kind).value:
        raise place.unfit(f"{key!r} does not hold {'floats' if key == SCORES_KEY else 'integers'}; {_REMEDY}")
    return list(getattr(stored, kind).value)
