"""Turn the arrays that a user passes to a model (`predict`, `tag`) into stored features."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topgb.errors import InputError
from topgb.features import MOST_RANGE, Feature, FeatureSpec

# Values of short videos that are checked and encoded at once: enough to make up for NumPy's calls, and few in memory.
BLOCK = 1 << 18


@dataclass(frozen=True)
class Videos:
    """Videos of stored features.

    stored    an array [T, D] for each video, uint8 where the spec stores all features in bytes, else float32; or all of
              them as one array [B, T, D]
    single    whether the user passed one video, not a collection
    cut       number of videos with more frames than the model sees, the rest of which were left out
    clipped   by the name of each feature whose floats became bytes, (values outside its range, values)
    """

    stored: Sequence[np.ndarray] | np.ndarray
    single: bool
    cut: int = 0
    clipped: dict[str, tuple[int, int]] = field(default_factory=dict)

    def notes(self, spec: FeatureSpec, max_frames: int) -> list[str]:
        """One sentence about frames that were left out, and one for each feature with values outside its range."""
        found = []
        if self.cut:
            whose = "the video has" if self.single else f"{self.cut} of {len(self.stored)} videos have"
            found.append(f"{whose} more than {max_frames} frames; the model looks at the first {max_frames}")
        for feature in spec.features:
            outside, values = self.clipped.get(feature.name, (0, 1))
            if outside:
                low, high = feature.range
                found.append(
                    f"{outside / values:.2%} of the values of feature {feature.name!r} lie outside {low:g} to "
                    f"{high:g}, the range that the model was trained with, and are clipped; was the feature computed "
                    "alike?"
                )
        return found


def to_stored(given: Any, spec: FeatureSpec, max_frames: int, num_frames: Any = None) -> Videos:
    """Arrays as `topgb.Model.predict` takes them, to the features that records of `spec` would store.

    A video is an array [T, D], or [D] for one frame, or a mapping from each feature's name to such an array. Several
    are a sequence of these, or an array [B, T, D], of which video i has `num_frames[i]` frames. uint8 values are stored
    bytes. Floats are raw values; they become bytes where the spec says so.

    Raises `InputError` where names, shapes or dtypes do not fit, or values are not finite.
    """
    plain = _plain_array(given, spec, max_frames, num_frames)
    if plain is not None:
        return Videos(plain, given.ndim < 3)
    videos, single = _as_videos(given)
    if num_frames is not None:
        videos = _without_padding(videos, np.atleast_1d(np.asarray(num_frames)), single)
    parts_of: list[list[np.ndarray]] = []
    cut = 0
    for number, video in enumerate(videos):
        where = _named(number, single)
        parts = _parts(video, spec, where)
        frames = len(parts[0])
        if spec.level == "video" and frames != 1:
            raise InputError(
                f"{where} has {frames} frames, but this model takes video-level features, one vector for each video; "
                f"pass [1, {spec.width}] for one video, or a list of vectors for several"
            )
        cut += frames > max_frames
        parts_of.append([part[:max_frames] for part in parts])
    stored: list[np.ndarray] = []
    clipped: dict[str, tuple[int, int]] = {}
    for block in _blocks(parts_of):
        own = videos[block]
        if spec.all_bytes and all(isinstance(video, np.ndarray) and video.dtype == np.uint8 for video in own):
            # Stored as they are: splitting them by feature and joining them again would copy them.
            stored.extend(np.atleast_2d(video)[:max_frames] for video in own)
            continue
        if (values := _plain_values(own, spec, max_frames)) is not None:
            stored.extend(values)
            continue
        names = [_named(number, single) for number in range(block.start, block.stop)]
        joined = _joined(parts_of[block], spec, names, clipped)
        stored.extend(np.split(joined, np.cumsum([len(parts[0]) for parts in parts_of[block]])[:-1]))
    return Videos(stored, single, cut, clipped)


def _plain_array(given: Any, spec: FeatureSpec, max_frames: int, num_frames: Any) -> np.ndarray | None:
    """`given` as [B, T, D], if it is an array of what records of `spec` store, unpadded, and nothing is amiss."""
    if type(given) is not np.ndarray or not 1 <= given.ndim <= 3 or not given.size or not given.flags.writeable:
        # PyTorch warns of arrays that cannot be written, though nothing writes to them here.
        return None
    array = given.reshape((1,) * (3 - given.ndim) + given.shape)
    frames, width = array.shape[1:]
    if width != spec.width or frames > (1 if spec.level == "video" else max_frames):
        return None
    if num_frames is not None and not _are_whole(array, np.asarray(num_frames)):
        return None
    if array.dtype == np.uint8:
        return array if spec.all_bytes else None
    if array.dtype != np.float32 or not spec.all_floats:
        return None
    # NaN compares as false. `array.max()` would call the same, by way of more Python.
    most, least = np.maximum.reduce(array, axis=None), np.minimum.reduce(array, axis=None)
    return array if most <= MOST_RANGE and least >= -MOST_RANGE else None


def _are_whole(videos: np.ndarray, counts: np.ndarray) -> bool:
    # One number for each video, or a bare one for a single video. Lists are faster than NumPy for so few.
    if counts.dtype.kind not in "iu" or counts.ndim > 1 or counts.size != len(videos):
        return False
    return counts.reshape(-1).tolist().count(videos.shape[1]) == len(videos)


def _named(number: int, single: bool) -> str:
    return "the video" if single else f"video {number}"


def _blocks(parts_of: Sequence[Sequence[np.ndarray]]) -> Iterator[slice]:
    """Runs of videos that are encoded at once: small ones, whose features have the same dtypes, together."""
    first, total, dtypes = 0, 0, None
    for number, parts in enumerate(parts_of):
        own, size = [part.dtype for part in parts], sum(part.size for part in parts)
        if number > first and (total + size > BLOCK or own != dtypes):
            yield slice(first, number)
            first, total = number, 0
        total, dtypes = total + size, own
    if parts_of:
        yield slice(first, len(parts_of))


def _plain_values(videos: Sequence[Any], spec: FeatureSpec, max_frames: int) -> list[np.ndarray] | None:
    """Videos of floats as they are, if the spec stores those and nothing in them is amiss; else None."""
    if not spec.all_floats:
        return None
    if not all(isinstance(video, np.ndarray) and video.dtype == np.float32 for video in videos):
        return None
    found = [np.atleast_2d(video)[:max_frames] for video in videos]
    # NaN compares as false.
    joined = np.concatenate(found) if len(found) > 1 else found[0]
    return found if np.abs(joined).max() <= MOST_RANGE else None


def _joined(
    parts_of: Sequence[Sequence[np.ndarray]],
    spec: FeatureSpec,
    names: Sequence[str],
    clipped: dict[str, tuple[int, int]],
) -> np.ndarray:
    """The parts of videos, which have `names` in messages, as stored features, frame after frame; adds to `clipped`."""
    columns = []
    for feature, *parts in zip(spec.features, *parts_of, strict=True):
        try:
            values, outside = _encoded(np.concatenate(parts), feature, names[0])
        except InputError:
            # Find the video that does not fit.
            for part, name in zip(parts, names, strict=True):
                _encoded(part, feature, name)
            raise
        if outside is not None:
            before = clipped.get(feature.name, (0, 0))
            clipped[feature.name] = before[0] + outside, before[1] + values.size
        columns.append(values)
    dtype = np.uint8 if spec.all_bytes else np.float32
    return np.concatenate(columns, axis=1).astype(dtype, copy=False)


def padded(stored: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Videos [T, D] as one array [B, T, D], padded with zeros to the longest, and their numbers of frames int [B].

    An array of videos, which have no padding, stays as it is; the numbers are None.
    """
    if isinstance(stored, np.ndarray):
        return stored, None
    counts = np.array([len(video) for video in stored])
    if counts.min() == counts.max():
        return np.stack(stored), counts
    features = np.empty((len(stored), counts.max(), stored[0].shape[1]), stored[0].dtype)
    for row, video in zip(features, stored, strict=True):
        row[: len(video)] = video
        # Zeros everywhere first would be written twice, and most videos have little padding.
        row[len(video) :] = 0
    return features, counts


def _as_videos(given: Any) -> tuple[list[Any], bool]:
    """The videos of `given`, each an array or a mapping of arrays, and whether it is a single one."""
    if isinstance(given, Mapping):
        split = {name: _as_videos(value) for name, value in given.items()}
        counts = {name: len(videos) for name, (videos, _) in split.items()}
        if not split or len(set(counts.values())) > 1 or len({single for _, single in split.values()}) > 1:
            raise InputError(f"the features hold different numbers of videos: {counts}; give each of them the same")
        singles = [single for _, single in split.values()]
        number = next(iter(counts.values()))
        return [{name: videos[i] for name, (videos, _) in split.items()} for i in range(number)], singles[0]
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return [video if isinstance(video, Mapping) else _array(video) for video in given], False
    array = _array(given)
    if array.ndim == 3:
        return list(array), False
    return [array], True


def _array(value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"a {type(value).__name__} is no array of features ({error}); pass a NumPy array [frames, values]"
        ) from error
    return array


def _without_padding(videos: list[Any], counts: np.ndarray, single: bool) -> list[Any]:
    longest = [_frames(video) for video in videos]
    fits = counts.shape == (len(videos),) and np.issubdtype(counts.dtype, np.integer)
    if not fits or any(not 1 <= count <= most for count, most in zip(counts.tolist(), longest, strict=True)):
        whole = longest[0] if single else max(longest, default=0)
        raise InputError(f"num_frames must be {len(videos)} numbers from 1 to {whole}")
    return [_first(video, count) for video, count in zip(videos, counts.tolist(), strict=True)]


def _frames(video: Any) -> int:
    array = next(iter(video.values())) if isinstance(video, Mapping) else video
    return len(array) if array.ndim == 2 else 1


def _first(video: Any, count: int) -> Any:
    if isinstance(video, Mapping):
        return {name: _first(array, count) for name, array in video.items()}
    return video[:count] if video.ndim == 2 else video


def _parts(video: Any, spec: FeatureSpec, where: str) -> list[np.ndarray]:
    """The array [T, size] of each feature of the spec. Raises `InputError` where names or shapes do not fit."""
    if isinstance(video, Mapping):
        wanted = [feature.name for feature in spec.features]
        if sorted(map(str, video)) != sorted(wanted):
            raise InputError(f"{where} has the features {_listed(video)}; this model takes {_listed(wanted)}")
        parts = [_frames_of(_array(video[f.name]), f.size, f"{where}, feature {f.name!r}") for f in spec.features]
        lengths = {feature.name: len(part) for feature, part in zip(spec.features, parts, strict=True)}
        if len(set(lengths.values())) > 1:
            raise InputError(f"the features of {where} have different numbers of frames: {lengths}")
        return parts
    frames = _frames_of(video, spec.width, where)
    return [frames[:, spec.columns(feature.name)] for feature in spec.features]


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "none"


def _frames_of(array: np.ndarray, width: int, where: str) -> np.ndarray:
    frames = array[None] if array.ndim == 1 else array
    if frames.ndim != 2 or frames.shape[1] != width or len(frames) < 1:
        raise InputError(
            f"{where} is {array.dtype} {list(array.shape)}; this model takes [frames, {width}], at least one frame"
        )
    return frames


def _encoded(values: np.ndarray, feature: Feature, where: str) -> tuple[np.ndarray, int | None]:
    """Values [T, size] as records store the feature, and how many lay outside its range if floats became bytes."""
    if values.dtype == np.uint8 and feature.dtype == "uint8":
        return values, None
    if not np.issubdtype(values.dtype, np.floating):
        stored = " or stored bytes (uint8)" if feature.dtype == "uint8" else ""
        raise InputError(f"{where} holds {values.dtype} for feature {feature.name!r}; pass floats{stored}")
    if not np.isfinite(values).all():
        raise InputError(f"{where} holds values of feature {feature.name!r} that are NaN or infinite")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if (np.abs(single) > np.float32(MOST_RANGE)).any():
        raise InputError(f"{where} holds values of feature {feature.name!r} beyond {MOST_RANGE:g}; make them anew")
    if feature.dtype == "float32":
        return single, None
    codes = feature.exact_codes(values.astype(np.float64))
    # Half a step outside rounds to a code at the end, as inside.
    outside = int(((codes < -0.5) | (codes > 255.5)).sum())
    return np.clip(np.rint(codes), 0, 255).astype(np.uint8), outside
