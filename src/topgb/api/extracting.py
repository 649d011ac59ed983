"""The call that makes records of a user's own videos: `extract`."""

from collections.abc import Mapping, Sequence
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

if TYPE_CHECKING:
    from topgb.video.extract_set import Extracted

OnDamaged = Literal["keep", "skip", "stop"]


@unpacking
def extract(
    sources: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    labels: PathLike | None = None,
    unlabelled: Unlabelled = "stop",
    like: PathLike | None = None,
    vocabulary: PathLike | None = None,
    range: Mapping[str, Range] | Range | None = None,
    validate: float | None = None,
    extractor: str = "default",
    fps: float = 1.0,
    max_seconds: float | None = None,
    jobs: int | None = None,
    on_damaged: OnDamaged = "keep",
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "Extracted":
    """Make records of your own videos, for `train`, `evaluate` and `predict` (`topgb extract`).

    `sources` are files, folders, globs or CSVs with a column path, or one of them. `labels` is a CSV with path and
    labels; videos without a row stop the work, are left out (`skip`), or have no class (`keep`). `like` is the folder
    of an earlier set, whose ranges and classes these records get: to evaluate a model, that of its training records.
    `vocabulary` and `range` set the two separately, as in `pack`. `validate` is the share of videos for
    `validate*.tfrecord`. `extractor` is `default` (features image, speech and mel), `image`, `sound`, `fast` (keyframes
    alone), `timm:NAME` or `open_clip:NAME`; `fps` is the number of vectors per second. No more than `max_seconds` of
    each video are extracted. `jobs` is the number of processes, by default one per core. `on_damaged` keeps what
    decodes of a damaged video, skips it, or stops. A stopped call goes on when it is made again.

    Raises `InputError` naming what does not fit, if no video can be read, and if `out` holds records and `force` is
    off; `TopgbError` if a package is not installed, or `out` cannot be written.

    >>> extracted = topgb.extract("clips", "extracted", labels="clips.csv", progress=False)  # doctest: +SKIP
    >>> extracted.videos, extracted.unreadable  # doctest: +SKIP
    (40, ())
    """
    from topgb.video.extract_set import ExtractOptions, extract_set

    check_least(validate=(validate, 0), fps=(fps, 0), max_seconds=(max_seconds, 0), jobs=(jobs, 1))
    check_choices(unlabelled=(unlabelled, Unlabelled), on_damaged=(on_damaged, OnDamaged))
    ranges = to_ranges(range)
    several = sources if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]
    options = ExtractOptions(
        to_optional_path(labels), unlabelled, to_optional_path(vocabulary), ranges, validate, extractor, fps,
        max_seconds, jobs, on_damaged, to_optional_path(like),
    )  # fmt: skip
    return extract_set([str(to_path(one)) for one in several], to_path(out), options, force, to_progress(progress))
