"""A user's own features into records: sharded TFRecords, a vocabulary, and the description that training reads."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from topgb.errors import InputError, option
from topgb.features import FeatureSpec
from topgb.files import refuse_existing
from topgb.packing.labels import class_numbers, read_labels
from topgb.packing.ranges import Cost
from topgb.packing.source import Source, find_source
from topgb.packing.survey import Range, Store, Survey
from topgb.packing.video import RawVideo
from topgb.packing.writer import TRAIN, VALIDATE, clear_earlier, earlier_shards, in_validation, shard_writer
from topgb.progress import SILENT, Progress
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.description import FILE, Description, write_description
from topgb.vocabulary import read_vocabulary, write_vocabulary

VOCABULARY = "vocabulary.csv"


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


@dataclass(frozen=True)
class PackOptions:
    """Options of `pack`.

    store             how floats are stored: `bytes` (None at frame level) or `float32` (None at video level). uint8
                      values stay as they are
    ranges            quantisation range of the feature of a name; that of None is for all others. Floats have
                      one of their own measured by default, bytes -2 to 2
    validate          share of the videos, chosen by a hash of their ids, that go to `validate0000.tfrecord` …
    videos_per_shard  records of a file
    name              the name of the feature that `.npy` files hold

    Raises `InputError` for numbers that make no sense.
    """

    store: Store | None = None
    ranges: Mapping[str | None, Range] = field(default_factory=dict)
    validate: float | None = None
    videos_per_shard: int = 1000
    name: str = "embedding"

    def __post_init__(self) -> None:
        if self.videos_per_shard < 1:
            raise InputError(f"{option('videos_per_shard')} is {self.videos_per_shard}; it must be 1 or more")
        if self.validate is not None and not 0 < self.validate < 1:
            share = f"{option('validate')} is {self.validate:g}"
            raise InputError(f"{share}; it must be a share between 0 and 1, such as 0.2")


DEFAULT_OPTIONS = PackOptions()


def pack(
    source: str,
    out: Path,
    labels: Path | None = None,
    vocabulary: Path | None = None,
    options: PackOptions = DEFAULT_OPTIONS,
    force: bool = False,
    progress: Progress = SILENT,
) -> Packed:
    """Write the videos of `source` (see `find_source`) as records to the folder `out`.

    The features are read twice: first everything is checked and measured, then shards `train0000.tfrecord` … are
    written, `vocabulary.csv` with the classes, and last `dataset.yaml`, which describes them. Arrays [T, D] make
    frame-level records, arrays [D] video-level ones. `labels` is a CSV of class names by id (see `read_labels`); None
    takes a table's column `labels`, and without either records are unlabelled. `vocabulary` is a CSV whose classes
    these are; None makes them of the labels, most frequent first. `force` replaces an earlier set in `out`.

    The same input gives the same bytes. Raises `InputError` naming the file and video where anything does not fit: an
    id that occurs twice or has no labels, another width, level, kind of values or set of features than the first
    video's, values that are not finite, labels that are not in `vocabulary`. Raises `TopgbError` where writing fails.
    """
    earlier = earlier_shards(out)
    for path in (*earlier, out / FILE, out / VOCABULARY, out / f"{TRAIN}0000.tfrecord"):
        refuse_existing(path, force)
    found = find_source(source, options.name)
    survey = Survey(
        labels=None if labels is None else read_labels(labels),
        labels_file=labels,
        known=None if vocabulary is None else class_numbers(read_vocabulary(vocabulary), str(vocabulary)),
        share=options.validate,
    )
    _each(found, survey.add, "measuring", progress)
    survey.check()
    spec, costs = survey.spec(options.store, options.ranges)
    names = survey.names()
    described = Description(out / FILE, spec, len(names) if names else None, VOCABULARY if names else None)
    # First, so that it never describes other records than those beside it.
    clear_earlier([out / FILE, *earlier])
    with _writing(out, options) as write:
        encoder = _Encoder(spec, costs, {name: number for number, name in enumerate(names)})

        def take(video: RawVideo) -> None:
            survey.check_fits(video)
            write(video.id, encoder.encode(video, survey.labels_of(video)))

        _each(found, take, "writing", progress)
    if names:
        write_vocabulary(out / VOCABULARY, names, [survey.counts[name] for name in names], force=True)
    write_description(described)
    quantised = {name: Quantised(cost.clipped / cost.values, cost.error) for name, cost in costs.items()}
    return Packed(described, survey.train, len(survey.ids) - survey.train, survey.total, survey.absent(), quantised)


@contextmanager
def _writing(out: Path, options: PackOptions) -> Iterator[Callable[[str, bytes], None]]:
    """A function that writes the record of a video of that id to the shards it belongs to."""
    with (
        shard_writer(out, TRAIN, options.videos_per_shard) as to_train,
        shard_writer(out, VALIDATE, options.videos_per_shard) as to_validate,
    ):

        def write(video_id: str, payload: bytes) -> None:
            (to_validate if in_validation(video_id, options.validate) else to_train)(payload)

        yield write


def _each(source: Source, action: Callable[[RawVideo], None], what: str, progress: Progress) -> None:
    progress.begin(what, source.videos, "videos")
    for video in source:
        action(video)
        progress.advance(1)
    progress.end()


@dataclass(frozen=True)
class _Encoder:
    """Makes records. `costs` belong to the features whose floats become bytes, `numbers` are the classes' by name."""

    spec: FeatureSpec
    costs: dict[str, Cost]
    numbers: dict[str, int]

    def encode(self, video: RawVideo, names: tuple[str, ...] | None) -> bytes:
        """The record of a video with labels of these names; None: without labels."""
        stored = {}
        for feature in self.spec.features:
            values = np.atleast_2d(video.features[feature.name])
            cost = self.costs.get(feature.name)
            stored[feature.name] = values if cost is None else cost.quantise(values, feature)
        classes = None if names is None else sorted(self.numbers[name] for name in names)
        if self.spec.level == "frame":
            return encode_sequence_example(video.id, stored, classes)
        return encode_example(video.id, {name: rows[0] for name, rows in stored.items()}, classes)
