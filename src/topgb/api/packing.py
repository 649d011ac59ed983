"""The call that makes records of a user's own features: `pack`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from topgb.api.arguments import (
    PathLike,
    Range,
    Size,
    Unlabelled,
    check_choices,
    check_least,
    to_optional_path,
    to_path,
    to_progress,
    to_ranges,
    unpacking,
)
from topgb.errors import InputError, option

if TYPE_CHECKING:
    from topgb.packing.pack import Packed

Store = Literal["bytes", "float32"]
Naming = Literal["path", "stem"]
Frames = Literal["equal", "longest"]
Arrays = Literal["videos", "features"]


@unpacking
def pack(
    source: PathLike | None,
    out: PathLike,
    *,
    feature: Mapping[str, PathLike] | None = None,
    labels: PathLike | None = None,
    unlabelled: Unlabelled = "stop",
    separator: str | None = None,
    vocabulary: PathLike | None = None,
    store: Store | None = None,
    range: Mapping[str, Range] | Range | None = None,
    validate: float | None = None,
    videos_per_shard: int = 1000,
    name: str = "embedding",
    id: Naming = "path",
    frames: Frames = "equal",
    arrays: Arrays | None = None,
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "Packed":
    """Make records of your own features, for `train`, `evaluate` and `predict` (`topgb data pack`).

    `source` is a folder with its subfolders, a glob or a file: `.npy` (one video each, [T, D] frames or [D], floats or
    uint8), `.npz` (one array per feature), `.h5` (one group or array per video, or one array per feature) or `.parquet`
    (one row per video). With `feature={"visual": DIR1, "audio": DIR2}`, a folder for each feature, it is None. A
    video's id is its path below the folder without the ending, or with `id="stem"` the file's name alone.
    `frames="longest"` repeats frames, the nearest in time, where the features of a video have unequal numbers of them;
    `arrays` says what the arrays at the top of HDF5 files are, if their names do not show it.

    `labels` is a CSV with id (or path) and labels, or AudioSet's segments; `unlabelled` says how to treat videos
    without a row: an error (`stop`), no record (`skip`), or a record of no class (`keep`). `separator` stands between
    the labels of a video. `vocabulary` is a CSV with the classes; by default they are those of the labels, most
    frequent first. `store` keeps floats as bytes (default for frames) or as they are; `range` is what bytes 0 to 255
    stand for, of every feature or by its name; by default it is measured. `validate` is the share of videos for
    `validate*.tfrecord`; `name` is the name of the feature in `.npy` files.

    Raises `InputError` naming what does not fit, and if `out` holds records and `force` is off; `TopgbError` if it
    cannot be written.

    >>> packed = topgb.pack("features", "packed", labels="labels.csv", validate=0.25, progress=False)
    >>> packed.train + packed.validate, packed.description.classes
    (40, 3)
    """
    from topgb.packing.pack import PackOptions, named_source
    from topgb.packing.pack import pack as run_pack

    check_least(videos_per_shard=(videos_per_shard, 1), validate=(validate, 0))
    check_choices(unlabelled=(unlabelled, Unlabelled), id=(id, Naming), frames=(frames, Frames))
    if store is not None:
        check_choices(store=(store, Store))
    if arrays is not None:
        check_choices(arrays=(arrays, Arrays))
    ranges = to_ranges(range)
    options = PackOptions(
        store=store,
        ranges=ranges,
        validate=validate,
        videos_per_shard=videos_per_shard,
        name=name,
        separator=separator,
        ids=id,
        frames=frames,
        arrays=arrays,
        unlabelled=unlabelled,
    )
    csv, classes = to_optional_path(labels), to_optional_path(vocabulary)
    if feature is not None and not isinstance(feature, Mapping):
        raise InputError(f"{option('feature')} is a {type(feature).__name__}; give a dict of folders by feature names")
    folders = {one: str(to_path(folder)) for one, folder in (feature or {}).items()}
    named = named_source(None if source is None else str(to_path(source)), folders)
    return run_pack(named, to_path(out), csv, classes, options, force, to_progress(progress))
