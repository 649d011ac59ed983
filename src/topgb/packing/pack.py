"""Pack a user's own features into records: TFRecord shards, a vocabulary, and the description that training reads."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from topgb.errors import InputError, option
from topgb.features import FeatureSpec
from topgb.file_sets import NewFiles, finish_earlier, write_set
from topgb.files import refuse_existing
from topgb.folder_lock import writing_alone
from topgb.packing.cautions import caution_of_features, caution_of_labels, caution_of_ranges
from topgb.packing.files import Naming
from topgb.packing.frame_counts import Frames
from topgb.packing.hdf5 import Arrays
from topgb.packing.label_rows import Unlabelled, match_rows, no_row_error
from topgb.packing.labels import Labels, known_classes, read_labels
from topgb.packing.made_by import UNKNOWN, MadeBy, made_by
from topgb.packing.ranges import Cost
from topgb.packing.source import Reading, Source, find_source
from topgb.packing.survey import Range, Store, Survey
from topgb.packing.video import RawVideo
from topgb.packing.writer import TRAIN, VALIDATE, earlier_shards, in_validation, shard_writer
from topgb.progress import SILENT, Progress
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.description import FILE, MOST_FRAMES, Description, description_yaml
from topgb.records.sampling import Cut
from topgb.results import Result
from topgb.vocabulary import read_classes, vocabulary_csv

VOCABULARY = "vocabulary.csv"
_NO_SEPARATOR = set("\"'[](){}")


@dataclass(frozen=True)
class Quantised:
    """The cost of storing a feature's floats as bytes: the share of clipped values, and `Cost.error`."""

    clipped: float
    error: float


@dataclass(frozen=True, repr=False)
class Packed(Result):
    """The result of `pack`.

    description   the contents of dataset.yaml
    train         number of videos in the training shards
    validate      number of videos in the validation shards
    labels        number of labels of all videos together
    absent        number of rows of the labels' CSV whose videos have no features
    unlabelled    number of videos without labels where others have some: left out, or kept as showing no class
    quantised     cost by feature, for features whose floats were stored as bytes
    cut           frames that recipes cut off unless they say otherwise
    """

    description: Description
    train: int
    validate: int
    labels: int
    absent: int
    quantised: dict[str, Quantised]
    cut: Cut = field(default_factory=lambda: Cut(MOST_FRAMES))
    unlabelled: int = 0


@dataclass(frozen=True)
class PackOptions:
    """Options of `pack`.

    store             how floats are stored: `bytes` (None at frame level) or `float32` (None at video level). uint8
                      values stay as they are
    ranges            quantisation range by feature name; the one for None holds for all other features. By default the
                      range of floats is measured, and that of bytes is -2 to 2
    validate          share of the videos, chosen by a hash of their ids, that go to `validate0000.tfrecord` …
    videos_per_shard  number of records in a file
    ids               whether ids are `path`s below the source's folder, or files' names (`stem`)
    frames            how to treat features of one video with unequal numbers of frames (see `raw_video`)
    arrays            meaning of the arrays at the top of HDF5 files (see `hdf5.find_videos`)
    name              the name of the feature that `.npy` files hold
    unlabelled        how to treat videos without labels where others have some: an error that lists them (`stop`),
                      no record (`skip`), or a record that shows none of the classes (`keep`)
    separator         separator of the labels of a video in one text. None: `;`, or AudioSet's `,` in its own CSVs. A
                      `,` also reads lists as Python and JSON write them

    Raises `InputError` for numbers that make no sense.
    """

    store: Store | None = None
    ranges: Mapping[str | None, Range] = field(default_factory=dict)
    validate: float | None = None
    videos_per_shard: int = 1000
    name: str = "embedding"
    separator: str | None = None
    ids: Naming = "path"
    frames: Frames = "equal"
    arrays: Arrays | None = None
    unlabelled: Unlabelled = "stop"

    def __post_init__(self) -> None:
        if self.separator is not None and (not self.separator or set(self.separator) & _NO_SEPARATOR):
            raise InputError(
                f"{option('separator', self.separator)} cannot separate labels; give a sign such as , or |"
            )
        if self.videos_per_shard < 1:
            raise InputError(f"{option('videos_per_shard')} is {self.videos_per_shard}; it must be 1 or more")
        if self.validate is not None and not 0 < self.validate < 1:
            share = f"{option('validate')} is {self.validate:g}"
            raise InputError(f"{share}; it must be a share between 0 and 1, such as 0.2")


DEFAULT_OPTIONS = PackOptions()


def pack(
    source: str | Mapping[str, str],
    out: Path,
    labels: Path | None = None,
    vocabulary: Path | None = None,
    options: PackOptions = DEFAULT_OPTIONS,
    force: bool = False,
    progress: Progress = SILENT,
) -> Packed:
    """Write the videos of `source`, or of a source for each feature, as records to the folder `out`.

    See `find_source` for what sources are.

    Arrays [T, D] make frame-level records, arrays [D] video-level ones. The features are read twice: once to check and
    measure everything, once to write the shards `train0000.tfrecord` …, beside `vocabulary.csv` with the classes and
    `dataset.yaml`, which describes the records. All of these files appear together, at the end.

    labels      CSV of class names by video (see `read_labels` and `match_rows`). None takes a table's column `labels`;
                without either, records are unlabelled
    vocabulary  CSV of the classes. None makes the classes from the labels, most frequent first
    force       replace an earlier set in `out`

    Features that `topgb extract` made keep the identity of their extractor; different extractors are an `InputError`.

    The same input gives the same bytes. Raises `InputError` naming the file and video if anything does not fit: an id
    that occurs twice, or has no labels with `unlabelled` "stop"; another width, level, kind of values or set of
    features than those of the first video; values that are not finite; labels that are not in `vocabulary`, or that
    seem to be several labels. Raises `TopgbError` if writing fails.
    """
    with writing_alone(out):
        refuse_earlier(out, force)
        found = find_source(source, Reading(options.name, options.ids, options.frames, options.arrays))
        rows = None if labels is None else read_labels(labels, options.separator)
        left_out = 0
        if rows is not None and labels is not None and found.entries:
            rows = match_rows(rows, found.entries, labels)
            found, left_out = labelled(found, rows, labels, options.unlabelled)
        packed = write_packed(Material(found, rows, labels, vocabulary, made_by(found)), out, options, progress)
        return replace(packed, unlabelled=packed.unlabelled + left_out)


def refuse_earlier(out: Path, force: bool) -> None:
    """Finish a set that a killed process left in `out`, and raise `InputError` if one is there and `force` is off."""
    finish_earlier(out)
    for path in (*earlier_shards(out), out / FILE, out / VOCABULARY, out / f"{TRAIN}0000.tfrecord"):
        refuse_existing(path, force, "records")


@dataclass(frozen=True)
class Material:
    """Videos that are ready to be packed.

    source      their features
    rows        labels by id, None without labels
    labels      the CSV that these are from
    vocabulary  CSV of the classes, None makes them of the labels
    made_by     the extractor that made the features, and FFmpeg's version, where that is known
    """

    source: Source
    rows: Labels | None = None
    labels: Path | None = None
    vocabulary: Path | None = None
    made_by: MadeBy = UNKNOWN


def write_packed(material: Material, out: Path, options: PackOptions, progress: Progress) -> Packed:
    """Pack videos, replacing the set in `out`, which the caller has locked and checked. Raises as `pack` does."""
    found, vocabulary = material.source, material.vocabulary
    survey = Survey(
        labels=material.rows,
        labels_file=material.labels,
        known=None if vocabulary is None else known_classes(read_classes(vocabulary), str(vocabulary)),
        share=options.validate,
        separator=options.separator,
        on_unlabelled=options.unlabelled,
    )
    _for_each_video(found, survey.add, "measuring", progress)
    survey.check()
    # Features that `topgb extract` made are zeros where a video has no sound, which it says itself.
    if material.made_by.extractor is None:
        caution_of_features(survey.fixed)
    if survey.known is None:
        caution_of_labels(survey.counts, survey.total, survey.train, len(survey.ids))
    spec, costs = survey.spec(options.store, options.ranges)
    names = survey.names()
    classes, vocabulary_name = (len(names), VOCABULARY) if names else (None, None)
    made = material.made_by.extractor, material.made_by.ffmpeg
    described = Description(out / FILE, spec, classes, vocabulary_name, survey.max_frames or None, *made)
    with write_set(out, gone=earlier_shards(out)) as files:
        with _record_writer(files, options) as write:
            encoder = _Encoder(spec, costs, {name: number for number, name in enumerate(names)})

            def take(video: RawVideo) -> None:
                survey.check_fits(video)
                if survey.leaves_out(video):
                    return
                write(video.id, encoder.encode(video, survey.labels_of(video)))

            _for_each_video(found, take, "writing", progress)
        caution_of_ranges(spec, costs)
        if names:
            files.write(VOCABULARY, vocabulary_csv(names, [survey.counts[name] for name in names]))
        files.write(FILE, description_yaml(described))
    quantised = {name: Quantised(cost.clipped / cost.values, cost.error) for name, cost in costs.items()}
    validate = len(survey.ids) - survey.train
    unlabelled = len(survey.unlabelled)
    return Packed(described, survey.train, validate, survey.total, survey.absent(), quantised, survey.cut, unlabelled)


def named_source(source: str | None, features: Mapping[str, str]) -> str | Mapping[str, str]:
    """The source that a user named in one of two ways. Raises `InputError` for both or none."""
    if (source is None) == (not features):
        named = option("feature")
        given = f"both a source and {named} are given" if features else f"neither a source nor {named} is given"
        raise InputError(f"{given}; name one folder that holds all features, or one for each feature")
    return features if source is None else source


def labelled(found: Source, rows: Labels, labels: Path, unlabelled: Unlabelled) -> tuple[Source, int]:
    """The part of a source that is packed, and the number of videos left out, before any features are read."""
    without = [(entry.id, entry.parts[0].where) for entry in found.entries if entry.id not in rows]
    if unlabelled == "keep" or not without:
        return found, 0
    if unlabelled == "stop":
        raise no_row_error(without, found.videos, rows, labels)
    kept = found.only(rows.__contains__)
    if not kept.videos:
        raise InputError(
            f"{labels} has no row for any of the {found.videos:,} videos: its first row is for {next(iter(rows))!r}, "
            f"the first video is {without[0][0]!r}; name the CSV of these videos"
        )
    return kept, len(without)


@contextmanager
def _record_writer(files: NewFiles, options: PackOptions) -> Iterator[Callable[[str, bytes], None]]:
    """A function that writes the record of the video with a given id to the shard it belongs to."""
    with (
        shard_writer(files, TRAIN, options.videos_per_shard) as to_train,
        shard_writer(files, VALIDATE, options.videos_per_shard) as to_validate,
    ):

        def write(video_id: str, payload: bytes) -> None:
            (to_validate if in_validation(video_id, options.validate) else to_train)(payload)

        yield write


def _for_each_video(source: Source, action: Callable[[RawVideo], None], what: str, progress: Progress) -> None:
    progress.begin(what, source.videos, "videos")
    for video in source:
        action(video)
        progress.advance(1)
    progress.end()


@dataclass(frozen=True)
class _Encoder:
    """Encodes videos as records.

    costs    for features whose floats become bytes, by name
    numbers  the classes' numbers by name
    """

    spec: FeatureSpec
    costs: dict[str, Cost]
    numbers: dict[str, int]

    def encode(self, video: RawVideo, names: tuple[str, ...] | None) -> bytes:
        """The record of a video with labels of these `names`; None makes an unlabelled record."""
        stored = {}
        for feature in self.spec.features:
            values = np.atleast_2d(video.features[feature.name])
            cost = self.costs.get(feature.name)
            stored[feature.name] = values if cost is None else cost.quantise(values, feature)
        classes = None if names is None else sorted(self.numbers[name] for name in names)
        if self.spec.level == "frame":
            return encode_sequence_example(video.id, stored, classes)
        return encode_example(video.id, {name: rows[0] for name, rows in stored.items()}, classes)
