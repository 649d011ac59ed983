"""Calls on records: `inspect`, `verify`, `synth`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from topgb.api.arguments import (
    Data,
    PathLike,
    Size,
    check_choices,
    check_least,
    check_pairs,
    to_path,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.errors import InputError, option
from topgb.progress import counting
from topgb.results import Result

if TYPE_CHECKING:
    from topgb.features import FeatureSpec
    from topgb.jobs.engine import EngineKind
    from topgb.records.inspect import Inspection
    from topgb.records.verify import Verification

Level = Literal["video", "frame"]


@unpacking
def inspect(data: Data, *, max_unpacked: Size | None = None, progress: bool = True) -> "Inspection":
    """Look at what records hold, without a recipe: level, features, frames, labels, classes (`topgb data inspect`).

    The table has a row for each feature. Raises `InputError` if nothing matches `data` or a file cannot be opened;
    damaged records are left out, and listed in `damaged`.

    >>> found = topgb.inspect("records/validate*.tfrecord", progress=False)
    >>> found.records, found.level, [feature.name for feature in found.features]
    (60, 'frame', ['audio', 'rgb'])
    """
    from topgb.records.inspect import inspect_shards

    return inspect_shards(to_pattern(data), counting(to_progress(progress), "reading", "files"))


@unpacking
def verify(
    data: Data,
    *,
    engine: "EngineKind" = "local",
    address: str | None = None,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "Verification":
    """Check every record's CRCs and contents (`topgb data verify`); the table has a row for each damaged record.

    `engine="ray"` goes through the files on the Ray cluster at `address`. Raises `InputError` if nothing matches `data`
    or a file cannot be opened; faults inside a file are returned.

    >>> found = topgb.verify("records/validate*.tfrecord", progress=False)
    >>> found.sound, found.damaged
    (60, [])
    """
    from topgb.jobs.engine import EngineKind, open_engine
    from topgb.records.verify import verify_shards

    check_choices(engine=(engine, EngineKind))
    on_progress = counting(to_progress(progress), "verifying", "files")
    return verify_shards(to_pattern(data), on_progress, open_engine(engine, address))


@dataclass(frozen=True, repr=False)
class Synthesised(Result):
    """The files that `synth` wrote, in order, and the number of videos in them."""

    files: list[Path]
    videos: int


def synth(
    folder: PathLike,
    *,
    videos: int = 1000,
    classes: int = 100,
    level: Level = "frame",
    features: Mapping[str, int] | None = None,
    frames: tuple[int, int] = (20, 60),
    videos_per_shard: int = 1000,
    seed: int = 0,
    noise: float = 1.5,
    labelled: bool = True,
    segments: bool = False,
    prefix: str = "train",
    force: bool = False,
    progress: bool = True,
) -> Synthesised:
    """Write a learnable synthetic data set (`topgb data synth`); the same options give the same bytes.

    `features` gives each feature's width by its name; None means YouTube-8M's of that level. Frames are stored as
    uint8, video-level features as float32. `frames` are the fewest and the most of a video. Another `seed` gives other
    videos of the same classes. At `noise=0` the classes are clear, around 5 they drown. With `segments`
    5 of each video are rated, as in the challenge of 2019: a class then shows in whole segments. Raises `InputError`
    for numbers that make no sense, and if files of this `prefix` exist and `force` is off; with it they are replaced.

    >>> topgb.synth("synthetic", videos=30, classes=5, features={"rgb": 8}, progress=False).files
    [PosixPath('synthetic/train0000.tfrecord')]
    """
    from topgb.records.synth import RATED_SEGMENTS, SynthOptions, write_synthetic

    check_choices(level=(level, Level))
    check_least(videos=(videos, 1), classes=(classes, 1), videos_per_shard=(videos_per_shard, 1), seed=(seed, 0))
    check_least(noise=(noise, 0))
    check_pairs(int, frames=frames)
    written = write_synthetic(
        to_path(folder),
        _spec(level, features),
        classes,
        videos,
        SynthOptions(
            videos_per_shard=videos_per_shard,
            frames=frames,
            seed=seed,
            noise=noise,
            labelled=labelled,
            prefix=prefix,
            segments=RATED_SEGMENTS if segments else 0,
        ),
        force=force,
        on_progress=counting(to_progress(progress), "writing", "videos"),
    )
    return Synthesised(written, videos)


def _spec(level: Level, features: Mapping[str, int] | None) -> "FeatureSpec":
    from topgb.features import YOUTUBE8M_FRAMES, YOUTUBE8M_VIDEOS, Feature, FeatureSpec

    if features is None:
        return YOUTUBE8M_FRAMES if level == "frame" else YOUTUBE8M_VIDEOS
    if not isinstance(features, Mapping) or not all(isinstance(size, int) and size > 0 for size in features.values()):
        raise InputError(f"{option('features', features)} does not give widths by name, such as {{'rgb': 1024}}")
    dtype: Literal["uint8", "float32"] = "uint8" if level == "frame" else "float32"
    return FeatureSpec(level, tuple(Feature(name, size, dtype) for name, size in features.items()))
