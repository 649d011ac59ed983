"""The call that makes records of a user's own features: `pack`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from topgb.api.arguments import (
    PathLike,
    Size,
    check_choices,
    check_least,
    check_pairs,
    to_optional_path,
    to_path,
    to_progress,
    unpacking,
)

if TYPE_CHECKING:
    from topgb.packing.pack import Packed

Range = tuple[float, float]
Store = Literal["bytes", "float32"]


@unpacking
def pack(
    source: PathLike,
    out: PathLike,
    *,
    labels: PathLike | None = None,
    separator: str | None = None,
    vocabulary: PathLike | None = None,
    store: Store | None = None,
    range: Mapping[str, Range] | Range | None = None,
    validate: float | None = None,
    videos_per_shard: int = 1000,
    name: str = "embedding",
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "Packed":
    """Make records of your own features, for `train`, `evaluate` and `predict` (`topgb data pack`).

    `source` is a folder, a glob or a file: `.npy` (a video each, [T, D] frames or [D], floats or uint8), `.npz` (an
    array a feature) or `.parquet` (a row a video). `labels` is a CSV with id and labels, or AudioSet's segments;
    `separator` parts a video's labels. `vocabulary` is a CSV with the classes; by default they are those of the labels,
    most frequent first. `store` keeps floats as bytes (default for frames) or as they are; `range` is what bytes 0 to
    255 stand for, of every feature or by its name; by default it is measured. `validate` is the share of videos for
    `validate*.tfrecord`; `name` is what the feature of `.npy` files is called.

    Raises `InputError` naming what does not fit, and if `out` holds records and `force` is off; `TopgbError` if it
    cannot be written.

    >>> packed = topgb.pack("features", "packed", labels="labels.csv", validate=0.25, progress=False)
    >>> packed.train + packed.validate, packed.description.classes
    (40, 3)
    """
    from topgb.packing.pack import PackOptions
    from topgb.packing.pack import pack as run_pack

    check_least(videos_per_shard=(videos_per_shard, 1), validate=(validate, 0))
    if store is not None:
        check_choices(store=(store, Store))
    ranges: dict[str | None, Range] = {}
    if isinstance(range, Mapping):
        ranges.update(range)
    elif range is not None:
        ranges[None] = range
    for ends in ranges.values():
        check_pairs(float, range=ends)
    options = PackOptions(store, ranges, validate, videos_per_shard, name, separator)
    csv, classes = to_optional_path(labels), to_optional_path(vocabulary)
    return run_pack(str(to_path(source)), to_path(out), csv, classes, options, force, to_progress(progress))
