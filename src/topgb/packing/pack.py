"""A user's own features into records: sharded TFRecords, a vocabulary, and the description that training reads."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from topgb.errors import InputError, option
from topgb.features import Feature, FeatureSpec, Level
from topgb.files import refuse_existing
from topgb.packing.labels import Labels, class_names, class_numbers, read_labels
from topgb.packing.ranges import Cost, Measured
from topgb.packing.source import Source, find_source
from topgb.packing.video import RawVideo
from topgb.packing.writer import TRAIN, VALIDATE, clear_earlier, earlier_shards, in_validation, shard_writer
from topgb.progress import SILENT, Progress
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.description import FILE, Description, write_description
from topgb.vocabulary import read_vocabulary, write_vocabulary

VOCABULARY = "vocabulary.csv"
Store = Literal["bytes", "float32"]
Range = tuple[float, float]


@dataclass(frozen=True)
class Quantised:
    """What it cost to store a feature's floats as bytes: the share of values clipped, and `Cost.error`."""

    clipped: float
    error: float


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote.

    description   what stands in dataset.yaml
    train         videos in the training shards
    validate      videos in those to validate on
    labels        labels of all videos together
    absent        ids that the labels' CSV has and the features have not
    quantised     by feature, for floats that were stored as bytes
    """

    description: Description
    train: int
    validate: int
    labels: int
    absent: int
    quantised: dict[str, Quantised]


def pack(
    source: str,
    out: Path,
    labels: Path | None = None,
    vocabulary: Path | None = None,
    store: Store | None = None,
    ranges: Mapping[str | None, Range] | None = None,
    validate: float | None = None,
    videos_per_shard: int = 1000,
    name: str = "embedding",
    force: bool = False,
    progress: Progress = SILENT,
) -> Packed:
    """Write the videos of `source` (see `find_source`) as records to the folder `out`.

    The features are read twice: first everything is checked and measured, then shards `train0000.tfrecord` … are
    written, `vocabulary.csv` with the classes, and last `dataset.yaml`, which describes them. Arrays [T, D] make
    frame-level records, arrays [D] video-level ones.

    labels            CSV of class names by id (see `read_labels`). None takes a table's column `labels`; without
                      either, records are unlabelled
    vocabulary        CSV whose classes these are; None makes them of the labels, most frequent first
    store             how floats are stored: `bytes` (None at frame level) or `float32` (None at video level). uint8
                      values stay as they are
    ranges            quantisation range of the feature of a name; that of None is for all others. Floats have
                      one of their own measured by default, bytes -2 to 2
    validate          share of the videos, chosen by a hash of their ids, that go to `validate0000.tfrecord` …
    name              what the feature of `.npy` files is called
    force             replace an earlier set in `out`

    The same input gives the same bytes. Raises `InputError` naming the file and video where anything does not fit: an
    id that occurs twice or has no labels, another width, level, kind of values or set of features than the first
    video's, values that are not finite, labels that are not in `vocabulary`. Raises `TopgbError` where writing fails.
    """
    if videos_per_shard < 1:
        raise InputError(f"{option('videos_per_shard')} is {videos_per_shard}; it must be 1 or more")
    if validate is not None and not 0 < validate < 1:
        raise InputError(f"{option('validate')} is {validate:g}; it must be a share between 0 and 1, such as 0.2")
    earlier = earlier_shards(out)
    for path in (*earlier, out / FILE, out / VOCABULARY, out / f"{TRAIN}0000.tfrecord"):
        refuse_existing(path, force)
    found = find_source(source, name)
    survey = _Survey(
        labels=None if labels is None else read_labels(labels),
        labels_file=labels,
        known=None if vocabulary is None else class_numbers(read_vocabulary(vocabulary), str(vocabulary)),
        share=validate,
    )
    _each(found, survey.add, "measuring", progress)
    survey.check()
    spec, costs = survey.spec(store, ranges or {})
    names = survey.names()
    described = Description(out / FILE, spec, len(names) if names else None, VOCABULARY if names else None)
    # First, so that it never describes other records than those beside it.
    clear_earlier([out / FILE, *earlier])
    with ExitStack() as stack:
        writers = [stack.enter_context(shard_writer(out, prefix, videos_per_shard)) for prefix in (TRAIN, VALIDATE)]
        numbers = {class_name: number for number, class_name in enumerate(names)}

        def write(video: RawVideo) -> None:
            survey.check_fits(video)
            writers[in_validation(video.id, validate)](_encode(video, spec, costs, survey.labels_of(video), numbers))

        _each(found, write, "writing", progress)
    if names:
        write_vocabulary(out / VOCABULARY, names, [survey.counts[class_name] for class_name in names], force=True)
    write_description(described)
    quantised = {key: Quantised(cost.clipped / cost.values, cost.error) for key, cost in costs.items()}
    return Packed(described, survey.train, len(survey.ids) - survey.train, survey.total, survey.absent(), quantised)


def _each(source: Source, action: Callable[[RawVideo], None], what: str, progress: Progress) -> None:
    progress.begin(what, source.videos, "videos")
    for video in source:
        action(video)
        progress.advance(1)
    progress.end()


@dataclass
class _Survey:
    """What the first reading finds.

    labels, labels_file  of the CSV, None without one
    known                numbers of the classes of a given vocabulary, None where classes are made of the labels
    share                of the videos to validate on
    first                the first video's level, and each feature's width and whether it is uint8
    ids                  of all videos
    train                number of training videos
    counts               training videos of each class; every class that occurs at all has its entry
    total                labels of all videos
    """

    labels: Labels | None
    labels_file: Path | None
    known: dict[str, int] | None
    share: float | None
    first: tuple[str, Level, dict[str, tuple[int, bool]]] | None = None
    labelled: bool = False
    ids: set[str] = field(default_factory=set)
    train: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    measured: dict[str, Measured] = field(default_factory=dict)

    def add(self, video: RawVideo) -> None:
        """Check a video and count it."""
        self.check_fits(video)
        if video.id in self.ids:
            raise InputError(f"{video.where}: the id {video.id!r} occurs twice; give each video an id of its own")
        self.ids.add(video.id)
        trains = not in_validation(video.id, self.share)
        self.train += trains
        names = self.labels_of(video) or ()
        self.total += len(names)
        for name in names:
            if self.known is not None and name not in self.known:
                raise InputError(
                    f"{video.where}: its label {name!r} is not in the vocabulary; correct it, or add the class there"
                )
            self.counts[name] += trains
        for name, values in video.features.items():
            if values.dtype != np.uint8:
                self.measured.setdefault(name, Measured()).add(np.atleast_2d(values))

    def check_fits(self, video: RawVideo) -> None:
        """Raise `InputError` where a video is not like the first."""
        held = {name: (values.shape[-1], values.dtype == np.uint8) for name, values in video.features.items()}
        if self.first is None:
            self.first = video.where, video.level, held
            self.labelled = self.labels is not None or video.labels is not None
        before, level, wanted = self.first
        if level != video.level:
            raise InputError(
                f"{video.where} has features of the {_whole(video.level)}, {before} those of the {_whole(level)}; "
                "pack them into two folders"
            )
        if wanted.keys() != held.keys():
            raise InputError(
                f"{video.where} has the features {', '.join(sorted(held))}, {before} has {', '.join(sorted(wanted))}; "
                "every video needs the same"
            )
        for name, (size, is_bytes) in held.items():
            if size != wanted[name][0]:
                raise InputError(
                    f"{video.where}: feature {name!r} is {size} wide, in {before} it is {wanted[name][0]}; "
                    "every video needs the same"
                )
            if is_bytes != wanted[name][1]:
                kinds = ("uint8", "floats") if is_bytes else ("floats", "uint8")
                raise InputError(
                    f"{video.where}: feature {name!r} holds {kinds[0]}, in {before} it holds {kinds[1]}; "
                    "every video needs the same"
                )

    def labels_of(self, video: RawVideo) -> tuple[str, ...] | None:
        """The names of a video's classes, or None where nothing is labelled."""
        if self.labels is None:
            if (video.labels is not None) != self.labelled:
                raise InputError(f"{video.where} has {'no' if self.labelled else 'a'} column labels, unlike the first")
            return video.labels
        if video.labels is not None:
            raise InputError(f"{video.where} has labels, and so has {self.labels_file}; leave one of them out")
        if video.id not in self.labels:
            raise InputError(
                f"{self.labels_file} has no row for the id {video.id!r} of {video.where}; add one, with no labels if "
                "the video shows none of the classes"
            )
        return self.labels[video.id]

    def check(self) -> None:
        """Raise `InputError` where there is nothing to train on, or to validate on."""
        if self.first is None:
            raise InputError("the tables hold no rows; pack some with at least one video")
        if self.share is not None and not 0 < self.train < len(self.ids):
            side = "all" if not self.train else "none"
            raise InputError(
                f"{option('validate')} {self.share:g} takes {side} of the {len(self.ids):,} videos; "
                "choose another share"
            )
        if self.labelled and self.known is None and not self.counts:
            raise InputError(
                f"no video has a label; label some, or leave {option('labels')} out to pack unlabelled records"
            )

    def spec(self, store: Store | None, ranges: Mapping[str | None, Range]) -> tuple[FeatureSpec, dict[str, Cost]]:
        """How the features are stored, and for floats stored as bytes what counts the cost of it."""
        assert self.first is not None
        _, level, held = self.first
        wanted: Store = store or ("bytes" if level == "frame" else "float32")
        features, costs = [], {}
        for name, (size, is_bytes) in held.items():
            given = ranges.get(name, ranges.get(None))
            if is_bytes:
                features.append(Feature(name, size, range=given or (-2.0, 2.0)))
            elif wanted == "bytes":
                features.append(Feature(name, size, range=given or self.measured[name].best_range()))
                costs[name] = Cost(self.measured[name].median_square)
            else:
                features.append(Feature(name, size, "float32"))
        for ranged in ranges:
            if not any(f.dtype == "uint8" and ranged in (None, f.name) for f in features):
                which = "no feature" if ranged is None else f"no feature {ranged!r}"
                raise InputError(
                    f"{option('ranges')} is given, but {which} is stored as bytes; leave it out, or add "
                    f"{option('store', 'bytes')}"
                )
        return FeatureSpec(level, tuple(features)), costs

    def names(self) -> tuple[str, ...]:
        """The classes in their order; none where nothing is labelled and no vocabulary given."""
        return tuple(self.known) if self.known is not None else class_names(self.counts)

    def absent(self) -> int:
        """Ids of the labels' CSV that have no features."""
        return 0 if self.labels is None else sum(video_id not in self.ids for video_id in self.labels)


def _encode(
    video: RawVideo,
    spec: FeatureSpec,
    costs: dict[str, Cost],
    names: tuple[str, ...] | None,
    numbers: dict[str, int],
) -> bytes:
    stored = {}
    for feature in spec.features:
        values = np.atleast_2d(video.features[feature.name])
        stored[feature.name] = costs[feature.name].quantise(values, feature) if feature.name in costs else values
    classes = None if names is None else sorted(numbers[name] for name in names)
    if spec.level == "frame":
        return encode_sequence_example(video.id, stored, classes)
    return encode_example(video.id, {name: rows[0] for name, rows in stored.items()}, classes)


def _whole(level: Level) -> str:
    return "frames" if level == "frame" else "whole video"
