"""The standard deviation of a video's feature vector, by which fake test videos are detected."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np

from topgb.csv_tables import read_table
from topgb.errors import DamagedRecordError, InputError, option
from topgb.features import Feature, FeatureSpec, Level
from topgb.records.codec import decode_record
from topgb.records.framing import Place
from topgb.records.ids import read_record_id
from topgb.records.layout import Layout
from topgb.records.protobuf_decoding import NO_FRAMES, feature_names, parse_record

# The names in YouTube-8M's frame-level and video-level records.
USUAL_FEATURES = ("rgb", "mean_rgb")

# (a record's data, its place) -> (the video's id, its deviation or None if that is not known).
Measure = Callable[[memoryview, Place], tuple[str, float | None]]


@dataclass(frozen=True)
class Spread:
    """The distribution of some videos' deviations; without videos, all fields but `videos` are None.

    videos           number of videos
    least, greatest  the extreme deviations
    mode             middle of the shortest interval that holds more than half of the deviations
    width            width of this interval
    """

    videos: int
    least: float | None = None
    mode: float | None = None
    greatest: float | None = None
    width: float | None = None

    @property
    def density(self) -> float:
        """Videos per unit of deviation around the mode; 0 without videos, infinite if all deviations are equal."""
        if self.width is None:
            return 0.0
        return self.videos / 2 / self.width if self.width else float("inf")


def spread_of(deviations: np.ndarray) -> Spread:
    """The `Spread` of `deviations`, float64 [N]."""
    count = len(deviations)
    if not count:
        return Spread(0)
    ordered = np.sort(deviations)
    reach = count // 2
    first = int(np.argmin(ordered[reach:] - ordered[: count - reach]))
    low, high = float(ordered[first]), float(ordered[first + reach])
    return Spread(count, float(ordered[0]), (low + high) / 2, float(ordered[-1]), high - low)


def deviations_from_records(feature: str | None = None) -> Measure:
    """A measure that reads records: the population standard deviation of the D values of a video's `feature`.

    The vector [D] is the mean over the frames. Frames stored in bytes are dequantised to -2 … 2 first, and nothing is
    L2-normalised, so YouTube-8M's frame-level `rgb` and video-level `mean_rgb` give the same deviation. `feature` None
    takes whichever of these two a record has. The measure raises `InputError` for a record without the feature,
    `DamagedRecordError` for one that makes no sense.
    """
    names = USUAL_FEATURES if feature is None else (feature,)
    layout: Layout | None = None

    def measure(payload: memoryview, place: Place) -> tuple[str, float]:
        nonlocal layout
        if layout is None:
            layout = _layout_of(payload, names, place)
        try:
            video = decode_record(payload, layout, place)
        except DamagedRecordError:
            raise
        except InputError:
            # The record is not like the one before it. That is no fault here: each record is measured by itself.
            layout = _layout_of(payload, names, place)
            video = decode_record(payload, layout, place)
        [stored] = layout.spec.features
        return video.id, stored.scale * float(video.frames[0].mean(axis=0, dtype=np.float64).std())

    return measure


def deviations_from_csv(path: Path) -> Measure:
    """A measure that looks videos up in a CSV with the columns `vids` and `std` (2018: `vids_by_std.csv`).

    The CSV may have other columns too. Raises `InputError` if the file is not such a CSV, names a video twice or holds
    a `std` that is no number.
    """
    deviations = _read_deviations(path)

    def measure(payload: memoryview, place: Place) -> tuple[str, float | None]:
        video_id = read_record_id(payload, place)
        return video_id, deviations.get(normalize("NFC", video_id))

    return measure


def _read_deviations(path: Path) -> dict[str, float]:
    table = read_table(path, ("vids", "std"))
    for column in ("vids", "std"):
        if column not in table.columns:
            raise InputError(
                f"{path} has no column {column!r} in its first line; give a CSV with the columns vids and std"
            )
    ids, stds = table.columns.index("vids"), table.columns.index("std")
    found: dict[str, float] = {}
    for line, row in table.rows:
        if len(row) != len(table.columns):
            raise InputError(
                f"{path}: line {line} has {len(row)} columns and the first line {len(table.columns)}; mend it"
            )
        video_id = row[ids]
        if video_id in found:
            raise InputError(f"{path}: line {line} names video {video_id!r} again; leave one of its lines")
        found[video_id] = _deviation(path, line, row[stds])
    return found


def _deviation(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    # This form of the comparison refuses NaN too.
    if not 0 <= value < float("inf"):
        raise InputError(f"{path}: line {line} has the std {text[:30]!r}; it must be a number from 0")
    return value


def _layout_of(payload: memoryview, names: tuple[str, ...], place: Place) -> Layout:
    """A layout that reads the first of the features `names` that the record has."""
    message = parse_record(payload, place)
    lists, context = message.feature_lists.feature_list, message.context
    for name in names:
        level: Level = "frame" if name in lists else "video"
        if level == "video" and name not in context.feature:
            continue
        rows = lists[name].feature if level == "frame" else [context.feature[name]]
        if not len(rows):
            raise place.unfit(f"feature {name!r} has no frames; {NO_FRAMES}")
        kind = rows[0].WhichOneof("kind")
        if kind == "bytes_list" and len(rows[0].bytes_list.value) == 1:
            stored = Feature(name, max(1, len(rows[0].bytes_list.value[0])), "uint8")
        elif kind == "float_list":
            stored = Feature(name, max(1, len(rows[0].float_list.value)), "float32")
        else:
            raise InputError(
                f"{place}: feature {name!r} holds neither bytes nor floats; name another {option('feature')}"
            )
        if stored.size < 2:
            raise InputError(f"{place}: feature {name!r} has fewer than two values; name another {option('feature')}")
        return Layout(FeatureSpec(level, (stored,)), classes=None)
    wanted = " or ".join(map(repr, names))
    held = ", ".join(sorted({*lists, *feature_names(context)})) or "none"
    raise InputError(f"{place} has no feature {wanted}; it has: {held}; name one of those with {option('feature')}")
