"""Make synthetic data sets in the formats of real ones: learnable, and of any size.

Every class is a direction in a small space of hidden causes. A video shows each of its classes during one stretch of
its frames, over a background that all videos share, a style of its own, and noise. Each feature value shows a few of
the hidden causes. Classes overlap, because there are more classes than hidden dimensions. So no model is perfect, and
looking at frames one by one beats looking at their mean.
"""

import functools
import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topgb.errors import InputError, option
from topgb.features import MOST_VALUES, Feature, FeatureSpec
from topgb.file_sets import finish_earlier, write_set
from topgb.files import refuse_existing
from topgb.folder_lock import writing_alone
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import write_record
from topgb.records.segments import SEGMENT_FRAMES, Ratings, rating_entries

_HIDDEN = 32
# Hidden causes in each feature value: few enough to need no matrix product, whose threads fight over busy cores.
_CAUSES = 4
_MEAN_LABELS = 3.0
_BACKGROUND = 1.0
_STYLE = 0.5
# Standard deviation of a feature's values, as a share of half its range: few values are clipped.
_SPREAD = 0.4
_FEATURE_NOISE = 0.5
# Least and greatest share of a video's segments that show a class.
_SEGMENT_SHARE = (0.1, 0.5)
# Strength of a class's surroundings, which show in all frames of its videos.
_SCENE = 0.5
# Bytes that every machine has.
_LITTLE = 1 << 28
# The challenge of 2019 rated about as many segments of a video.
RATED_SEGMENTS = 5


@dataclass(frozen=True)
class World:
    """The parts that all sets of one `world_seed` share.

    prototypes   float32 [V, hidden], each class's direction
    causes       int64 [4, D], the hidden causes that each value shows
    weights      float32 [4, D], the weight of each of these causes
    background   float32 [hidden]
    scenes       float32 [V, hidden], each class's surroundings, which a model of segments must not take for the class
    frequencies  float64 [V], probability of each class, falling as in natural data
    """

    prototypes: np.ndarray
    causes: np.ndarray
    weights: np.ndarray
    background: np.ndarray
    scenes: np.ndarray
    frequencies: np.ndarray


@functools.lru_cache(maxsize=1)
def make_world(width: int, classes: int, world_seed: int) -> World:
    """The world of `world_seed` for features of `width` values and `classes` classes."""
    generator = np.random.default_rng((world_seed, width, classes))
    prototypes = generator.standard_normal((classes, _HIDDEN), np.float32)
    prototypes *= np.sqrt(_HIDDEN) / np.linalg.norm(prototypes, axis=1, keepdims=True)
    causes = generator.integers(0, _HIDDEN, (_CAUSES, width))
    weights = generator.standard_normal((_CAUSES, width), np.float32) / np.float32(np.sqrt(_CAUSES))
    background = _BACKGROUND * generator.standard_normal(_HIDDEN, np.float32)
    frequencies = 1.0 / np.arange(3, classes + 3)
    # This generator is of its own, so that sets without segments stay what they were.
    scenes = np.random.default_rng((world_seed, width, classes, 1)).standard_normal((classes, _HIDDEN), np.float32)
    return World(prototypes, causes, weights, background, scenes, frequencies / frequencies.sum())


@dataclass(frozen=True)
class SynthOptions:
    """Options of `write_synthetic`.

    videos_per_shard  number of records in a file
    frames            the fewest and the most frames of a video; a video-level record is the mean of as many
    seed              another seed gives other videos
    world_seed        another seed gives other classes
    noise             how hard the set is: at 0 the classes are clear, around 5 they drown
    labelled          whether records have labels
    prefix            files are named PREFIX0000.tfrecord and so on
    id_key            the name under which a record has its id
    segments          the number of segments of a video that are rated, 0 for none: a class shows in whole segments
    """

    videos_per_shard: int = 1000
    frames: tuple[int, int] = (20, 60)
    seed: int = 0
    world_seed: int = 0
    noise: float = 1.5
    labelled: bool = True
    prefix: str = "train"
    id_key: str = "id"
    segments: int = 0


DEFAULT_OPTIONS = SynthOptions()


def write_synthetic(
    folder: str | Path,
    spec: FeatureSpec,
    classes: int,
    videos: int,
    options: SynthOptions = DEFAULT_OPTIONS,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `videos` records to shards `folder/PREFIX0000.tfrecord`, … and return their paths.

    Sets with the same `world_seed`, widths and number of classes share their classes, so a model trained on one set can
    be evaluated on another `seed`. The same arguments give the same bytes, and a video does not depend on the number of
    videos. `on_progress` is called with (videos written, videos).

    All shards appear together, at the end. With `force`, they replace an earlier set of the prefix (files named PREFIX
    and four digits), its surplus shards included. Raises `InputError` for senseless sizes and, without `force`, if
    shards of the prefix exist; raises `TopgbError` if writing fails.
    """
    (fewest, most), each = options.frames, options.videos_per_shard
    if videos < 1 or classes < 1 or each < 1 or not 1 <= fewest <= most:
        raise InputError(
            f"cannot make {videos} videos of {fewest} to {most} frames, {classes} classes and {each} "
            "videos a shard; give numbers of 1 or more, and the fewer frames first"
        )
    if options.segments and (spec.level == "video" or fewest < SEGMENT_FRAMES):
        raise InputError(
            f"segments are {SEGMENT_FRAMES} frames of a video; make frame-level records of at least as many frames"
        )
    _check_memory(spec.width, classes, most)
    world = make_world(spec.width, classes, options.world_seed)
    starts = range(0, videos, each)
    paths = [Path(folder) / f"{options.prefix}{number:04d}.tfrecord" for number in range(len(starts))]
    with writing_alone(Path(folder)):
        finish_earlier(Path(folder))
        earlier = _earlier_shards(folder, options.prefix)
        for path in sorted({*paths, *earlier}):
            refuse_existing(path, force, "records")
        with write_set(Path(folder), gone=earlier) as files:
            for path, start in zip(paths, starts, strict=True):
                with files.open(path.name) as file:
                    for number in range(start, min(start + each, videos)):
                        write_record(file, _record(world, spec, number, options))
                        if on_progress:
                            on_progress(number + 1, videos)
        return paths


def _check_memory(width: int, classes: int, frames: int) -> None:
    """Raise `InputError` where so many classes or values take more memory than is free, or more than a model can."""
    if classes > MOST_VALUES:
        raise InputError(f"{option('classes', classes)} is too many; a model has {MOST_VALUES:,} at most")
    # A class has two rows of floats, and as many while they are made; a value is in several arrays at once.
    needed = {"classes": 16 * _HIDDEN * classes, "features": 16 * (_CAUSES + frames) * width}
    if sum(needed.values()) < _LITTLE:
        return
    # Imported here, because PyTorch takes longer to import than most sets to write.
    import torch

    from topgb.devices import free_memory

    free = free_memory(torch.device("cpu"))
    if free is not None and sum(needed.values()) > free:
        most = max(needed, key=lambda name: needed[name])
        number = f"{classes:,} classes" if most == "classes" else f"{frames:,} frames of {width:,} values"
        raise InputError(
            f"{number} take about {needed[most] / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free; lower "
            f"{option('classes') if most == 'classes' else option('features') + ' or ' + option('frames')}"
        )


def _earlier_shards(folder: str | Path, prefix: str) -> list[Path]:
    """The shards of an earlier set: globs of the new set match even those that it does not replace."""
    # Exactly four digits, because other prefixes may end in digits.
    pattern = glob.escape(os.path.join(folder, prefix)) + "[0-9]" * 4 + ".tfrecord"
    return list(map(Path, glob.glob(pattern)))


def _record(world: World, spec: FeatureSpec, number: int, options: SynthOptions) -> bytes:
    """The record of video `number`."""
    generator = np.random.default_rng((options.seed, options.world_seed, number))
    values, stretches = _make_video(world, options.frames, options.noise, generator, bool(options.segments))
    labels = list(stretches)
    video_id = f"{options.prefix}-{options.seed}-{number:06d}"
    more = b""
    if options.segments and options.labelled:
        more = rating_entries(_rate(stretches, len(values), options.segments, world, generator))
    return _encode(spec, values, labels if options.labelled else None, video_id, options.id_key, more)


def _rate(
    stretches: dict[int, tuple[int, int]], frames: int, segments: int, world: World, generator: np.random.Generator
) -> Ratings:
    """One rating for each of at most `segments` segments: half for a class that shows there, half for one that doesn't.

    As in the challenge, most negatives are classes of the video that show elsewhere.
    """
    count = frames // SEGMENT_FRAMES
    starts = SEGMENT_FRAMES * np.sort(generator.permutation(count)[:segments])
    classes, positive = [], []
    for start in starts.tolist():
        here = [label for label, (first, end) in stretches.items() if first <= start < end]
        elsewhere = [label for label in stretches if label not in here]
        if here and (generator.random() < 0.5 or len(world.prototypes) == len(here)):
            choices = here
        else:
            others = np.setdiff1d(np.arange(len(world.prototypes)), list(stretches)).tolist()
            choices = elsewhere if elsewhere and (generator.random() < 0.8 or not others) else others or here
        classes.append(int(generator.choice(choices)))
        positive.append(classes[-1] in here)
    return Ratings(starts.astype(np.int64), np.array(classes, np.int64), np.array(positive, np.bool_))


def _make_video(
    world: World, frames: tuple[int, int], noise: float, generator: np.random.Generator, in_segments: bool = False
) -> tuple[np.ndarray, dict[int, tuple[int, int]]]:
    """Values, float32 [N, D] with standard deviation about 1, and by label, sorted, the frames [first, end) showing it.

    With `in_segments` these are whole segments, at most half of the video's; its surroundings show in all frames.
    """
    classes, hidden = world.prototypes.shape
    count = int(generator.integers(frames[0], frames[1] + 1))
    wanted = min(1 + int(generator.poisson(_MEAN_LABELS - 1)), classes)
    labels = np.sort(generator.choice(classes, wanted, replace=False, p=world.frequencies))
    causes = world.background + _STYLE * generator.standard_normal(hidden, np.float32)
    causes = causes + np.float32(noise) * generator.standard_normal((count, hidden), np.float32)
    stretches = {}
    step = SEGMENT_FRAMES if in_segments else 1
    for label in labels.tolist():
        units = count // step
        length = int(np.ceil(units * generator.uniform(*_SEGMENT_SHARE if in_segments else (0.2, 1.0)))) * step
        start = int(generator.integers(0, units - length // step + 1)) * step
        stretches[label] = (start, start + length)
        if in_segments:
            causes += np.float32(_SCENE) * world.scenes[label]
        causes[start : start + length] += np.float32(generator.uniform(0.6, 1.4)) * world.prototypes[label]
    values = np.float32(_FEATURE_NOISE) * generator.standard_normal((count, world.causes.shape[1]), np.float32)
    for shown, weight in zip(world.causes, world.weights, strict=True):
        values += causes.take(shown, axis=1) * weight
    return values * np.float32(1 / np.sqrt(1 + _BACKGROUND + _MEAN_LABELS * 0.6 + noise**2)), stretches


def _encode(
    spec: FeatureSpec, values: np.ndarray, labels: list[int] | None, video_id: str, id_key: str, more: bytes
) -> bytes:
    if spec.level == "video":
        values = values.mean(axis=0, keepdims=True)
    stored = {feature.name: _as_stored(values[:, spec.columns(feature.name)], feature) for feature in spec.features}
    if spec.level == "frame":
        return encode_sequence_example(video_id, stored, labels, id_key, more=more)
    return encode_example(video_id, {name: rows[0] for name, rows in stored.items()}, labels, id_key)


def _as_stored(values: np.ndarray, feature: Feature) -> np.ndarray:
    """`values`, of standard deviation about 1, as the feature stores them: float32, or uint8 over its range."""
    low, high = feature.range
    scaled = np.float32((high - low) / 2 * _SPREAD) * values + np.float32((low + high) / 2)
    if feature.dtype == "float32":
        return scaled
    codes = np.rint((scaled - np.float32(feature.offset)) / np.float32(feature.scale))
    return np.clip(codes, 0, 255).astype(np.uint8)
