"""A video of a user's own features, as read from files, before it becomes a record."""

import os
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np

from topgb.errors import InputError, option
from topgb.features import MOST_RANGE, MOST_VALUES, Level
from topgb.packing.frame_counts import Frames, stretched
from topgb.records.codec import IDENTITY_KEYS
from topgb.records.labels import is_label_key

# A path, which an id is where each video has a file, is no longer.
MOST_ID = 4096
# Half a megabyte or more counts a feature's values while they are measured (`ValueHistogram`).
MOST_FEATURES = 100
# Names that mean something else in a record.
_RECORD_KEYS = {key.decode() for key in IDENTITY_KEYS}


@dataclass(frozen=True)
class RawVideo:
    """A video's features as read from files.

    id          the id of its record, in Unicode's form NFC
    where       the file, and the row of a table; error messages name it
    features    uint8 or float32 arrays by name: either all [T, D] with the same T, or all [D]
    labels      names of its classes: a list, or a text with separators between them; None if the source has no labels
    unlabelled  whether the source has labels, but none for this video
    """

    id: str
    where: str
    features: dict[str, np.ndarray]
    labels: str | tuple[str, ...] | None = None
    unlabelled: bool = False

    @property
    def level(self) -> Level:
        """`frame` for arrays [T, D], `video` for arrays [D]."""
        return "frame" if next(iter(self.features.values())).ndim == 2 else "video"


def raw_video(
    video_id: str,
    where: str,
    features: dict[str, np.ndarray],
    labels: str | tuple[str, ...] | None = None,
    unlabelled: bool = False,
    frames: Frames = "equal",
) -> RawVideo:
    """Make a video, and check it. Raises `InputError` naming `where` and the feature at fault.

    Features of unequal numbers of frames are an error, or with `frames` "longest" stretched to those of the longest.
    """
    check_count(len(features), where)
    if not features:
        raise InputError(f"{where} holds no feature; give each video at least one array [T, D] or [D]")
    if not video_id.strip():
        raise InputError(f"{where} has an empty id; give each video an id of its own")
    if len(video_id) > MOST_ID:
        raise InputError(f"{where} has an id of {len(video_id):,} characters; give it one of {MOST_ID:,} at most")
    try:
        video_id.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where!a} gives an id that is not UTF-8; rename it") from None
    for name, values in features.items():
        _check_values(name, values, where)
    shapes = {name: values.shape for name, values in features.items()}
    if len({len(shape) for shape in shapes.values()}) > 1:
        raise InputError(
            f"{where} mixes features of frames and of the whole video ({_listing(shapes)}); make all [T, D], or all "
            "[D], and leave out arrays that are no features"
        )
    counts = {shape[0] for shape in shapes.values() if len(shape) == 2}
    if len(counts) > 1:
        if frames == "equal":
            raise InputError(
                f"{where} has features with unequal numbers of frames ({_listing(shapes)}); cut them alike, or repeat "
                f"frames of the shorter ones with {option('frames', 'longest')}"
            )
        for name, (_, width) in shapes.items():
            check_size(max(counts) * width, name, where)
        features = stretched(features, max(counts))
    return RawVideo(normal_id(video_id), where, features, labels, unlabelled)


def normal_id(video_id: str) -> str:
    """An id in the form in which ids compare: Unicode's NFC, without blanks around it, which CSVs do not keep."""
    return normalize("NFC", video_id).strip()


def check_name(name: str, where: str) -> None:
    """Raise `InputError` if a feature cannot be called `name`."""
    if is_label_key(name):
        raise InputError(
            f"{where}: no feature can be called {name!r}, as a model would read what it has to find out; leave it out, "
            f"and give labels as class names, in a CSV ({option('labels')}) or a table's column 'labels'"
        )
    if name in _RECORD_KEYS:
        raise InputError(
            f"{where}: no feature can be called {name!r}, as records call something else so; rename it or leave it out"
        )
    if not name or "." in name or not name.isprintable():
        raise InputError(f"{where}: a feature is called {name!r}; a name needs printable characters and no dot")


def check_count(features: int, where: str) -> None:
    """Raise `InputError` if a video, or a table's rows, have more than `MOST_FEATURES` features."""
    if features > MOST_FEATURES:
        raise InputError(
            f"{where} holds {features:,} features, and a video can have {MOST_FEATURES}; a feature is an array [T, D] "
            "or [D] (in a table a column of lists), so put values that belong together into one"
        )


def check_dtype(dtype: np.dtype | str, name: str, where: str) -> None:
    """Raise `InputError` if `dtype` is neither uint8 nor a float of 16, 32 or 64 bits."""
    if dtype not in (np.uint8, np.float16, np.float32, np.float64):
        raise InputError(
            f"{where}: feature {name!r} holds {str(dtype)[:40]}; save it as float32, or as uint8 if it is quantised"
            + if_labels(where)
        )


def if_labels(where: str) -> str:
    """The advice that errors of a video's array add where the array is called as if it held the labels of all."""
    stem = os.path.splitext(os.path.basename(where))[0]
    advice = f"; if these are the labels of other videos, give them as class names in a CSV ({option('labels')})"
    return advice if is_label_key(stem) else ""


def check_size(values: int, name: str, where: str) -> None:
    """Raise `InputError` if a feature has more values than a record can hold."""
    if 4 * values > MOST_VALUES:
        raise InputError(
            f"{where}: feature {name!r} says it has {values:,} values, too many for one video's record; cut the video"
        )


def as_stored(values: np.ndarray) -> np.ndarray:
    """`values` in the dtype that records store: uint8 as it is, floats as float32."""
    if values.dtype == np.uint8:
        return values
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _check_values(name: str, values: np.ndarray, where: str) -> None:
    if values.ndim not in (1, 2):
        raise InputError(f"{where}: feature {name!r} has the shape {values.shape}; it must be [T, D], or [D]")
    if not values.size:
        empty = "no frames" if values.ndim == 2 and not len(values) else "no values"
        raise InputError(f"{where}: feature {name!r} has {empty}; leave the video out, or make its features anew")
    if values.dtype != np.uint8 and not _within(values, MOST_RANGE):
        raise InputError(
            f"{where}: feature {name!r} holds values that are not finite, or beyond {MOST_RANGE:g}; "
            "leave the video out, or make its features anew"
        )


def _within(values: np.ndarray, most: float) -> bool:
    """Whether all values are numbers from -most to most; no copy of them is made."""
    return -most <= float(values.min()) and float(values.max()) <= most


def _listing(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
