"""Summarise what files of records hold: level, features, widths, frames, labels."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from topgb.errors import DamagedRecordError, RecordError, UnfitRecordError
from topgb.features import Feature, FeatureSpec
from topgb.records.feature_tallies import FeatureSummary, FeatureTally, check_bound, tally
from topgb.records.framing import Place
from topgb.records.ids import readable_ids
from topgb.records.labels import LABELS_KEY, LabelTally, label_list
from topgb.records.obstacles import FaultTally, of_features, of_labels, of_no_input, of_teacher
from topgb.records.on_damaged import note
from topgb.records.protobuf_decoding import ID_KEYS, PREDICTIONS_KEY, parse_record, read_predictions
from topgb.records.repeated import IdHashes, Repeated
from topgb.records.segments import RatingTally, read_ratings
from topgb.records.shards import OpenShard, find_shards, open_shard
from topgb.records.verify import check_readable
from topgb.results import Table

_MOST_KINDS, _MOST_CLASSES = 100, 10_000_000


@dataclass(repr=False)
class Inspection(Table):
    """The result of `inspect_shards`.

    level             `video`, `frame`, `mixed` (both kinds of records) or `unknown` (no features)
    features          those that a model could use: of each frame, or of the video
    other             further context features of frame-level records (start times and the like)
    min_frames …      frames of a video; None without frame-level records
    id_keys           number of records by the key that holds their id
    labelled          records with a list of class numbers, empty ones included
    empty_labels      records whose list is empty
    bad_labels        records whose labels are no class numbers
    label_fault       what is wrong with the first of these, or with all lists together; None if nothing is
    label_min, …_max  None without labels
    distinct_classes  how many different labels occur
    labels_per_video  mean over labelled records; None without any
    unusable          number of records that are intact but that no model can use
    obstacles         what keeps a recipe from reading these records, a sentence each
    segments          counts of ratings of segments
    damaged           errors of the records and files that could not be read
    repeated          videos that occur more than once, if any
    """

    files: int = 0
    records: int = 0
    level: Literal["video", "frame", "mixed", "unknown"] = "unknown"
    features: list[FeatureSummary] = field(default_factory=list)
    other: list[FeatureSummary] = field(default_factory=list)
    min_frames: int | None = None
    max_frames: int | None = None
    mean_frames: float | None = None
    id_keys: dict[str, int] = field(default_factory=dict)
    labelled: int = 0
    empty_labels: int = 0
    bad_labels: int = 0
    label_fault: str | None = None
    label_min: int | None = None
    label_max: int | None = None
    distinct_classes: int = 0
    labels_per_video: float | None = None
    unusable: int = 0
    obstacles: list[str] = field(default_factory=list)
    segments: RatingTally = field(default_factory=RatingTally)
    damaged: list[DamagedRecordError] = field(default_factory=list)
    repeated: Repeated | None = None

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Each feature's name, kind, least and greatest width, and the number of records that have it."""
        names = [field.name for field in fields(FeatureSummary)]
        return {name: [getattr(feature, name) for feature in self.features] for name in names}

    @property
    def suggested_classes(self) -> int | None:
        """The fewest classes that include every label, and every prediction of a teacher; None without either."""
        least = 0 if self.label_max is None else self.label_max + 1
        return max([least, *(feature.max_width for feature in self.other if feature.name == PREDICTIONS_KEY)]) or None

    @property
    def suggested_spec(self) -> FeatureSpec | None:
        """A spec that reads these records, widest feature first, or None if no spec does.

        It has the features that all records hold in one kind and width. Byte features get the usual range, because
        records do not say theirs. No recipe reads labels that are no class numbers, or labelled records among others.
        """
        if self.level not in ("video", "frame") or self.unusable or self.label_fault is not None:
            return None
        if 0 < self.labelled < self.records:
            return None
        steady = [f for f in self.features if f.records == self.records and f.may_be_input]
        steady = [f for f in steady if f.min_width == f.max_width > 0]
        if any(f.max_width > 1 for f in steady):
            # Single numbers beside vectors are durations and the like.
            steady = [f for f in steady if f.max_width > 1]
        if not steady:
            return None
        steady.sort(key=lambda f: (-f.max_width, f.name))
        level: Literal["video", "frame"] = "video" if self.level == "video" else "frame"
        return FeatureSpec(
            level,
            tuple(Feature(f.name, f.max_width, "uint8" if f.kind == "uint8" else "float32") for f in steady),
        )


def inspect_shards(pattern: str | Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> Inspection:
    """Look at every record of the shards of `pattern` (see `find_shards`), without a spec.

    `on_progress` is called with (files done, files). Raises `InputError` if nothing matches or a file cannot be opened;
    damaged records are left out and returned.
    """
    shards = find_shards(pattern)
    survey = _Survey()
    for done, shard in enumerate(shards, start=1):
        survey.ids_read.begin(done - 1)
        try:
            survey.add_shard(open_shard(shard))
        except DamagedRecordError as empty:
            note(empty, survey.damaged)
        if on_progress:
            on_progress(done, len(shards))
    result = survey.result(len(shards))
    result.repeated = survey.ids_read.repeated([shard.path for shard in shards], readable_ids)
    return result


class _Survey:
    """Counts over the records read so far."""

    def __init__(self) -> None:
        self.levels: Counter[str] = Counter()
        self.features: dict[str, FeatureTally] = {}
        self.other: dict[str, FeatureTally] = {}
        self.frames: Counter[int] = Counter()
        self.ids: Counter[str] = Counter()
        self.ids_read = IdHashes()
        self.labels: Counter[int] = Counter()
        self.label_lists = LabelTally()
        self.ratings = RatingTally()
        self.bad_labels, self.bad_ratings, self.bad_predictions = FaultTally(), FaultTally(), FaultTally()
        # How many records have a fault, and the reason of the first, by what such reasons have in common.
        self.unfit: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        # Records that hold no message.
        self.unparsed = 0
        self.damaged: list[DamagedRecordError] = []

    def add_shard(self, opened: OpenShard) -> None:
        for record in range(len(opened)):
            try:
                data, place = opened.checked(record)
                self._add_record(parse_record(data, place), place)
            except UnfitRecordError as error:
                # Other such faults do not end the looking at a record.
                self.unparsed += 1
                self._add_unfit(error)
            except DamagedRecordError as error:
                self._add_fault(error)
        if opened.damage:
            self._add_fault(opened.damage.error(opened.shard.path))

    def _add_fault(self, error: DamagedRecordError) -> None:
        if isinstance(error, UnfitRecordError):
            self._add_unfit(error)
        else:
            note(error, self.damaged)

    def _add_unfit(self, error: UnfitRecordError) -> None:
        # Numbers in parentheses and remedies differ from record to record.
        kind = error.reason.split("; ")[0].split(" (")[0]
        if kind not in self.unfit and len(self.unfit) >= _MOST_KINDS:
            kind, error.reason = "", "of one other fault or another; topgb data verify says which"
        self.unfit[kind] += 1
        self.reasons.setdefault(kind, error.reason)

    def _add_record(self, message: Any, place: Place) -> None:
        try:
            self.ids_read.add([check_readable(message, place)])
        except UnfitRecordError as error:
            self._add_unfit(error)
        self._add_labels(message.context, place)
        self._add_ratings(message.context, place)
        try:
            read_predictions(message.context, place)
        except RecordError as error:
            # Without a teacher, the record can be used all the same.
            self.bad_predictions.add(error, place)
        lists = message.feature_lists.feature_list
        context = {name: value for name, value in message.context.feature.items() if not self._is_identity(name, value)}
        self.levels["frame" if lists else "video" if context else "unknown"] += 1
        for name, value in context.items():
            # A teacher's predictions are no input of a model: a student learns them.
            tally(self.other if lists or name == PREDICTIONS_KEY else self.features, name, [value], place)
        for name, values in lists.items():
            tally(self.features, name, values.feature, place)
        if lists:
            self.frames[max(len(values.feature) for values in lists.values())] += 1

    def _is_identity(self, name: str, value: Any) -> bool:
        if name in ID_KEYS and value.bytes_list.value:
            self.ids[name] += 1
            return True
        return name == LABELS_KEY

    def _add_labels(self, context: Any, place: Place) -> None:
        try:
            labels = label_list(context, place)
        except RecordError as error:
            self.bad_labels.add(error, place)
            return
        if labels is not None:
            self.label_lists.add(labels)
            self.labels.update(labels)
            check_bound(len(self.labels) - 1, _MOST_CLASSES, "classes", place)

    def _add_ratings(self, context: Any, place: Place) -> None:
        try:
            ratings = read_ratings(context, place)
        except UnfitRecordError as error:
            # The labels of the whole video can be used all the same.
            self.bad_ratings.add(error, place)
        else:
            if ratings is not None:
                self.ratings.add(ratings)

    def _obstacles(self) -> list[str]:
        records = self.levels.total() + self.unparsed
        lines = [
            f"{count:,} of {records:,} records cannot be used: {self.reasons[kind]}"
            for kind, count in self.unfit.items()
        ]
        if self.bad_ratings.records:
            bad = self.bad_ratings
            where = f"the first of them in {bad.place}"
            lines.append(f"the ratings of segments in {bad.records:,} records cannot be used, {where}: {bad.reason}")
        if self.levels["video"] and self.levels["frame"]:
            lines.append("some records are of frames and some of whole videos; name one kind with a glob")
        records = self.levels.total()
        lines += of_labels(self.label_lists.lists + self.bad_labels.records, self.label_lists.empty, records)
        if not (self.levels["video"] and self.levels["frame"]):
            lines += of_features(self.features, records, bool(self.levels["frame"]))
        lines += of_teacher(
            self.other.get(PREDICTIONS_KEY), self.bad_predictions, records, max(self.labels, default=None)
        )
        return lines

    def result(self, files: int) -> Inspection:
        known = {level for level in ("video", "frame") if self.levels[level]}
        videos, lists = self.frames.total(), self.label_lists.lists
        found = Inspection(
            files=files,
            records=self.levels.total(),
            level="mixed" if len(known) == 2 else known.pop() if known else "unknown",  # type: ignore[arg-type]
            features=[seen.summary(name) for name, seen in sorted(self.features.items())],
            other=[seen.summary(name) for name, seen in sorted(self.other.items())],
            min_frames=min(self.frames, default=None),
            max_frames=max(self.frames, default=None),
            mean_frames=sum(frames * count for frames, count in self.frames.items()) / videos if videos else None,
            id_keys=dict(sorted(self.ids.items())),
            labelled=lists,
            empty_labels=self.label_lists.empty,
            bad_labels=self.bad_labels.records,
            label_fault=self.bad_labels.reason or self.label_lists.fault,
            label_min=min(self.labels, default=None),
            label_max=max(self.labels, default=None),
            distinct_classes=len(self.labels),
            labels_per_video=self.labels.total() / lists if lists else None,
            unusable=self.unfit.total(),
            obstacles=self._obstacles(),
            segments=self.ratings,
            damaged=self.damaged,
        )
        if found.suggested_spec is None and found.label_fault is None and not found.obstacles and found.features:
            found.obstacles = [of_no_input(self.features)]
        return found
