"""Calls for YouTube-8M's own records: `download` and `drop_fakes`."""

from typing import TYPE_CHECKING

from topgb.api.arguments import (
    Data,
    PathLike,
    Size,
    check_choices,
    check_least,
    check_pairs,
    to_optional_path,
    to_path,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.errors import InputError, option
from topgb.progress import counting

if TYPE_CHECKING:
    from topgb.records.on_damaged import OnDamaged
    from topgb.youtube8m.download import Download
    from topgb.youtube8m.fakes import DroppedFakes


def download(
    folder: PathLike,
    *,
    partition: str,
    shard: tuple[int, int] | None = None,
    mirror: str = "us",
    plans: str | None = None,
    jobs: int = 8,
    force: bool = False,
    progress: bool = True,
) -> "Download":
    """Download YouTube-8M's records (`topgb data download`); the same call again goes on where it stopped.

    `partition` is VERSION/LEVEL/SPLIT, such as 2/frame/train, `shard` (X, Y) the X-th of Y parts of its files. `mirror`
    is us, eu, asia or the URL of a server with files at URL/PARTITION/NAME, `plans` that of another server of plans.
    Every file's MD5 is checked before it gets its name. Files that are there are read: right ones are kept, and with
    others nothing is fetched; `force` fetches those anew. `failed` lists the files that could not be fetched, with
    reasons. Raises `InputError` for a partition that does not exist, `TopgbError` if the server of plans is out of
    reach.

    >>> servers = {"mirror": server.mirror, "plans": server.plans}
    >>> topgb.download("yt8m", partition="2/frame/train", shard=(1, 2), **servers, progress=False)
    Download(files=1, there=0, fetched=1, received=30, failed=[])
    """
    from topgb.youtube8m.download import DownloadOptions
    from topgb.youtube8m.download import download as run_download
    from topgb.youtube8m.plan import PLANS

    check_least(jobs=(jobs, 1))
    check_pairs(int, shard=shard)
    options = DownloadOptions(mirror, plans or PLANS, jobs)
    return run_download(to_path(folder), partition, shard, options, force, to_progress(progress))


@unpacking
def drop_fakes(
    source: Data,
    folder: PathLike,
    *,
    stats: PathLike | None = None,
    threshold: float = 0.1,
    feature: str | None = None,
    fakes: PathLike | None = None,
    on_damaged: "OnDamaged" = "stop",
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "DroppedFakes":
    """Copy test records without the fake videos of YouTube-8M's 2018 test set (`topgb data drop-fakes`).

    A fake's rgb vector, the mean over its frames, hardly varies: the standard deviation of its D values is at most
    `threshold`. Deviations are computed from `feature` (None: rgb or mean_rgb), or read from the CSV `stats` with the
    columns vids and std (2018: `vids_by_std.csv`). `fakes` is a CSV to write, with a row of a submission for each
    dropped video. Raises `InputError` if records lack the feature, are damaged (unless `on_damaged` is "skip"), or
    files exist and `force` is off.

    >>> found = topgb.drop_fakes("records/validate*.tfrecord", "real", feature="rgb", progress=False)
    >>> found.videos, found.kept.videos
    (60, 60)
    """
    from topgb.records.on_damaged import OnDamaged
    from topgb.youtube8m.deviations import deviations_from_csv, deviations_from_records
    from topgb.youtube8m.fakes import FakeCriterion
    from topgb.youtube8m.fakes import drop_fakes as run

    check_choices(on_damaged=(on_damaged, OnDamaged))
    check_least(threshold=(threshold, 0))
    if stats is not None and feature is not None:
        raise InputError(
            f"{option('stats')} takes the deviations from a CSV, and {option('feature')} from the records; give one"
        )
    csv, rows = to_optional_path(stats), to_optional_path(fakes)
    measure = deviations_from_records(feature) if csv is None else deviations_from_csv(csv)
    criterion, shown = FakeCriterion(measure, threshold), counting(to_progress(progress), "reading", "files")
    return run(to_pattern(source), to_path(folder), criterion, rows, on_damaged, force, shown)
