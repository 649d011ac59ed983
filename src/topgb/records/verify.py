"""Check files of records: every CRC, and whether every record makes sense, whatever its features are."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from topgb.errors import DamagedRecordError, NotRecordsError, RecordError, UnfitRecordError
from topgb.features import MOST_RANGE
from topgb.jobs.dispatch import dispatch, in_order
from topgb.jobs.engine import LOCAL, Engine, Piece
from topgb.progress import Progress
from topgb.records.framing import Place
from topgb.records.ids import readable_ids
from topgb.records.labels import LabelTally, label_list
from topgb.records.on_damaged import note
from topgb.records.protobuf_decoding import (
    NO_FRAMES,
    check_holds_features,
    feature_names,
    frame_width,
    not_finite,
    parse_record,
    read_id,
    read_predictions,
    unequal_frames,
)
from topgb.records.repeated import IdHashes, Repeated
from topgb.records.segments import RatingTally, read_ratings
from topgb.records.shards import Shard, find_shards, open_shard
from topgb.results import Table, plain


@dataclass(repr=False)
class Verification(Table):
    """The result of `verify_shards`: number of files, number of sound records, and errors of the others, in order.

    damaged   errors of records and files that cannot be read
    unusable  errors of records that are intact but hold something else than records should; each says what to do
    labels    counts of the label lists of the sound records
    segments  counts of their ratings of segments
    repeated  videos that occur more than once among the sound records, if any
    """

    files: int = 0
    sound: int = 0
    damaged: list[DamagedRecordError] = field(default_factory=list)
    unusable: list[RecordError] = field(default_factory=list)
    labels: LabelTally = field(default_factory=LabelTally)
    segments: RatingTally = field(default_factory=RatingTally)
    repeated: Repeated | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values; `labels` says what is wrong with all lists together, None if nothing is."""
        return super().to_dict() | {"labels": self.labels.fault}

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """The `file`, `record` (from 0), byte `offset` and `reason` of each damaged or unusable record."""
        rows = plain([*self.damaged, *self.unusable])
        return {name: [row[name] for row in rows] for name in ("file", "record", "offset", "reason")}

    def note(self, error: RecordError) -> None:
        """Add the error of a record or a file. Raises `InputError` if there are too many."""
        if isinstance(error, DamagedRecordError) and not isinstance(error, UnfitRecordError):
            note(error, self.damaged)
        else:
            note(error, self.unusable)

    def add(self, other: "Verification") -> None:
        """Count another part of the same records."""
        self.files += other.files
        self.sound += other.sound
        for error in (*other.damaged, *other.unusable):
            self.note(error)
        self.labels.merge(other.labels)
        self.segments.merge(other.segments)


def verify_shards(
    pattern: str | Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
    engine: Engine = LOCAL,
) -> Verification:
    """Check every record of the shards of `pattern` (see `find_shards`) with the workers of `engine`.

    `on_progress` is called with (files done, files). Raises `InputError` if nothing matches or a file cannot be opened,
    and as `dispatch`; faults inside a file are returned, not raised.
    """
    shards = find_shards(pattern)
    total, ids = Verification(), IdHashes()
    done = count(1)

    def add(number: int, found: _Checked) -> None:
        total.add(found[0])
        ids.put(number, found[1])

    def take(number: int, found: _Checked) -> None:
        add_in_order(number, found)
        if on_progress:
            on_progress(next(done), len(shards))

    pieces = [Piece(number, shard.path, 1) for number, shard in enumerate(shards)]
    add_in_order = in_order(pieces, add)
    local = [shard.path for shard in shards if not shard.remote]
    dispatch(_VerifyShard(shards), pieces, take, engine, shared=local[:1])
    total.repeated = ids.repeated([shard.path for shard in shards], readable_ids)
    return total


# The result for a shard, and the hashes of its sound records' ids.
_Checked = tuple[Verification, np.ndarray]


@dataclass(frozen=True)
class _VerifyShard:
    """The work of a worker: piece n is shard n."""

    shards: list[Shard]

    def __call__(self, number: int, progress: Progress) -> "_Checked":
        ids = IdHashes()
        ids.begin(number)
        return verify_shard(self.shards[number], ids), ids.of(number)


def verify_shard(shard: Shard, ids: IdHashes | None = None) -> Verification:
    """The result for one file; records behind a broken length are lost. Adds the sound records' ids to `ids`."""
    found = Verification(files=1)
    try:
        opened = open_shard(shard)
    except (DamagedRecordError, NotRecordsError) as error:
        found.note(error)
        return found
    for record in range(len(opened)):
        try:
            data, place = opened.checked(record)
            message = parse_record(data, place)
            video_id = check_readable(message, place)
            labels = label_list(message.context, place)
            ratings = read_ratings(message.context, place)
            read_predictions(message.context, place)
        except RecordError as error:
            found.note(error)
        else:
            found.sound += 1
            if ids is not None:
                ids.add([video_id])
            if labels is not None:
                found.labels.add(labels)
            if ratings is not None:
                found.segments.add(ratings)
    if opened.damage:
        found.note(opened.damage.error(shard.path))
    return found


def check_readable(message: Any, place: Place) -> str:
    """The id of a record. Raises `UnfitRecordError` if no model could use it, whatever its features; labels apart."""
    video_id = read_id(message.context, place)
    check_holds_features(message, place)
    lists = message.feature_lists.feature_list
    counts = {name: len(values.feature) for name, values in lists.items()}
    if not all(counts.values()):
        raise place.unfit(f"it has no frames; {NO_FRAMES}")
    if len(set(counts.values())) > 1:
        frame_counts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise place.unfit(unequal_frames(frame_counts))
    if lists:
        values = {name: rows.feature for name, rows in lists.items()}
        _check_frames(values, place)
    else:
        values = {name: [message.context.feature[name]] for name in feature_names(message.context)}
    for name, rows in values.items():
        if any(_beyond(row.float_list.value) for row in rows):
            raise place.unfit(not_finite(name))
    return video_id


def _check_frames(lists: Mapping[str, Any], place: Place) -> None:
    """Raise `UnfitRecordError` if no feature has frames that are all alike; one such may be text that none reads."""
    first = None
    for name, rows in sorted(lists.items()):
        try:
            frame_width(name, rows, place)
        except UnfitRecordError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def _beyond(values: Sequence[float]) -> bool:
    """Whether one of the values is not finite, or beyond `MOST_RANGE`."""
    # The sum is NaN if a value is; `max` and `min` may pass over it.
    return bool(values) and not (math.isfinite(sum(values)) and -MOST_RANGE <= min(values) <= max(values) <= MOST_RANGE)
