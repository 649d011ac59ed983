"""Many videos to a set of records: features of each in a file of its own, then all of them packed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from topgb.errors import InputError, option
from topgb.extractor_identity import difference, shown
from topgb.features import Feature
from topgb.folder_lock import writing_alone
from topgb.packing.files import Found, VideoFile
from topgb.packing.label_rows import Unlabelled, match_rows
from topgb.packing.labels import Labels, read_labels
from topgb.packing.made_by import MadeBy, made_by
from topgb.packing.pack import Material, PackOptions, labelled, refuse_earlier, write_packed
from topgb.packing.source import Entry, Reading, Source
from topgb.packing.survey import Range
from topgb.progress import SILENT, Progress
from topgb.records.description import FILE, read_description
from topgb.results import Result
from topgb.video.extract import OnDamagedVideo
from topgb.video.extraction import Extraction, LeftOut
from topgb.video.extractors import Extractor, find_extractor
from topgb.video.sources import find_videos
from topgb.video.workers import Workers


@dataclass(frozen=True)
class ExtractOptions:
    """Options of `extract_set`.

    labels       CSV of class names by video, with the columns `path` (or `id`) and `labels`; None takes the sources'
    unlabelled   what becomes of videos without a row (see `PackOptions`)
    vocabulary   CSV of the classes; None makes them of the labels
    ranges       quantisation range by feature, or for all (None)
    validate     share of the videos for `validate*.tfrecord`
    extractor    name of the extractor (see `find_extractor`)
    fps          vectors per second
    max_seconds  extract no more of each video
    jobs         number of processes; None is one for each core
    on_damaged   `keep` what decodes of a damaged video, `skip` it, or `stop`
    like         folder of an earlier set, whose ranges and classes hold unless others are given; None for none

    Raises `InputError` for values that make no sense.
    """

    labels: Path | None = None
    unlabelled: Unlabelled = "stop"
    vocabulary: Path | None = None
    ranges: Mapping[str | None, Range] = field(default_factory=dict)
    validate: float | None = None
    extractor: str = "default"
    fps: float = 1.0
    max_seconds: float | None = None
    jobs: int | None = None
    on_damaged: OnDamagedVideo = "keep"
    like: Path | None = None

    def __post_init__(self) -> None:
        if self.on_damaged not in get_args(OnDamagedVideo):
            raise InputError(
                f"{option('on_damaged', self.on_damaged)} is none of {', '.join(get_args(OnDamagedVideo))}"
            )
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InputError(f"{option('max_seconds')} is {self.max_seconds:g}; it must be more than 0")
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"{option('jobs')} is {self.jobs}; it must be 1 or more")


@dataclass(frozen=True)
class Damaged:
    """A video of which only a part decodes, with the number of bad packets."""

    path: str
    packets: int


@dataclass(frozen=True, repr=False)
class Extracted(Result):
    """The result of `extract_set`.

    out         the folder
    extractor   the identity of the extractor
    videos      number of videos in the records
    seconds     their length together
    decoded     number of videos that were decoded now; the others' features were there
    train       number of videos in the training shards
    validate    number of videos in the validation shards
    features    the features as records hold them
    classes     number of classes, None without labels
    labels      number of labels of all videos together
    absent      number of rows of the labels' CSV whose videos are not there
    unlabelled  number of videos without a row that are kept as showing no class
    unreadable  videos that were left out
    damaged     videos that were kept as far as they decode
    no_picture  seconds without a picture, whose picture features are zeros
    no_sound    seconds without sound, whose sound features are zeros
    cut         paths of videos that are longer than what was extracted
    stale       number of files in `out/features` of videos that are not named now; they are left as they are
    stale_bytes their size together
    """

    out: Path
    extractor: dict[str, Any]
    videos: int
    seconds: float
    decoded: int
    train: int
    validate: int
    features: tuple[Feature, ...]
    classes: int | None
    labels: int
    absent: int
    unlabelled: int
    unreadable: tuple[LeftOut, ...]
    damaged: tuple[Damaged, ...]
    no_picture: float
    no_sound: float
    cut: tuple[str, ...]
    stale: int = 0
    stale_bytes: int = 0


def extract_set(
    sources: list[str],
    out: Path,
    options: ExtractOptions | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Extracted:
    """Extract the videos of `sources` (see `find_videos`) into `out/features`, and pack them into records in `out`.

    Each video's features are a file that is written whole. It holds the hashes of the video and of the extractor, so a
    repeated call decodes no video again, however the earlier one ended. The files and the records do not depend on the
    number of jobs or threads. A video that cannot be read is left out and reported.

    Raises `NothingExtractedError` if no video can be read; with `on_damaged` "stop", `InputError` for the first one
    that is damaged; otherwise as `pack` and `find_extractor` do.
    """
    options = options or ExtractOptions()
    with writing_alone(out):
        refuse_earlier(out, force)
        videos, list_with_labels = find_videos(sources)
        labels_file = options.labels or list_with_labels
        rows, videos = _labelled(videos, labels_file, options.unlabelled)
        extractor = find_extractor(options.extractor, options.fps)
        options = _like_earlier(options, extractor)
        extractor.prepare()
        jobs = min(options.jobs or len(os.sched_getaffinity(0)), len(videos))
        work = Extraction(videos, out, extractor, options.max_seconds, options.on_damaged, progress)
        with Workers(extractor, jobs) as workers:
            work.look(workers)
            work.extract(workers)
        done = work.done()
        packing = PackOptions(ranges=options.ranges, validate=options.validate, unlabelled=options.unlabelled)
        entries = tuple(Entry(one.video.id, (VideoFile(one.video.id, Found(str(one.target), "")),)) for one in done)
        source = Source(Reading(), len(entries), entries)
        made = MadeBy(dict(extractor.identity), made_by(source).ffmpeg)
        material = Material(source, rows, labels_file, options.vocabulary, made)
        packed = write_packed(material, out, packing, progress)
    notes = [one.notes for one in done]
    stale = work.stale()
    return Extracted(
        out=out,
        extractor=dict(extractor.identity),
        videos=packed.train + packed.validate,
        seconds=sum(one.seconds for one in done),
        decoded=work.decoded,
        train=packed.train,
        validate=packed.validate,
        features=packed.description.spec.features,
        classes=packed.description.classes,
        labels=packed.labels,
        absent=packed.absent,
        unlabelled=packed.unlabelled,
        unreadable=tuple(work.unreadable),
        damaged=tuple(Damaged(one.video.found.path, one.notes.damaged) for one in done if one.notes.damaged),
        no_picture=sum(note.no_picture for note in notes) / extractor.fps,
        no_sound=sum(note.no_sound for note in notes) / extractor.fps,
        cut=tuple(one.video.found.path for one in done if one.notes.cut),
        stale=len(stale),
        stale_bytes=sum(stale),
    )


def _like_earlier(options: ExtractOptions, extractor: Extractor) -> ExtractOptions:
    """The options with the ranges and classes of the set that they name."""
    if options.like is None:
        return options
    described = read_description(options.like / FILE)
    how = None if described.extractor is None else difference(described.extractor, dict(extractor.identity))
    if described.extractor is not None and how is not None:
        raise InputError(
            f"{options.like} was made by the extractor {shown(described.extractor)}, not by "
            f"{shown(dict(extractor.identity))}: {how}; choose its {option('extractor')}, or leave {option('like')} out"
        )
    ranges: dict[str | None, Range] = {f.name: f.range for f in described.spec.features if f.dtype == "uint8"}
    vocabulary = None if described.vocabulary is None else options.like / described.vocabulary
    return replace(options, ranges={**ranges, **options.ranges}, vocabulary=options.vocabulary or vocabulary)


def _labelled(
    videos: list[VideoFile], labels: Path | None, unlabelled: Unlabelled
) -> tuple[Labels | None, list[VideoFile]]:
    """The labels by id, and the videos to extract. Faults of the labels are found here, before hours of decoding."""
    if labels is None:
        return None, videos
    entries = tuple(Entry(video.id, (video,)) for video in videos)
    rows = match_rows(read_labels(labels), entries, labels)
    kept, _ = labelled(Source(Reading(), len(entries), entries), rows, labels, unlabelled)
    return rows, [entry.parts[0] for entry in kept.entries]
