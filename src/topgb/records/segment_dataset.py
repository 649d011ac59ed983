"""A data set whose rows are segments of videos: each is a short video, cut from its record."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from topgb.batch import Batch
from topgb.errors import DamagedRecordError, InputError
from topgb.features import MOST_VALUES, FeatureSpec
from topgb.progress import SILENT, Progress
from topgb.records.codec import count_frames, read_context
from topgb.records.dataset import Dataset, LoadedBatch, RecordKey
from topgb.records.labels import Targets
from topgb.records.on_damaged import NoteDamage, OnDamaged
from topgb.records.protobuf_decoding import RecordIdentity
from topgb.records.sampling import FrameSampling
from topgb.records.segments import SEGMENT_FRAMES, read_ratings, segment_name
from topgb.records.shards import Shard, find_shards

# Keeps the draws of negatives apart from those of frames, which have 0 here.
_NEGATIVES = 1


@dataclass(frozen=True)
class SegmentCut:
    """Which segments of a video are rows, with which frames and which targets.

    rows             `rated`: the rated segments; `every`: the 5-frame segments from 0, 5, … that lie in the video
    context          frames before the segment, and as many after it
    whole            frames spread evenly over the whole video
    video_labels     what a label of the video counts in each of its segments where the pair is unrated
    mined_negatives  unrated classes taken for negatives, drawn anew for each segment and epoch from the classes that
                     are rated anywhere, but not labels of the video or its segments

    A row's frames are the segment's own 5, then the context in order of time, then those of the whole video. Frames
    before the first or behind the last repeat that one. Rows of `every` segment have the labels of their video.
    """

    rows: Literal["rated", "every"] = "rated"
    context: int = 0
    whole: int = 0
    video_labels: float = 0.0
    mined_negatives: int = 0

    @property
    def frames(self) -> int:
        """The number of frames of a row."""
        return SEGMENT_FRAMES + 2 * self.context + self.whole

    @property
    def of_videos(self) -> bool:
        """Whether the targets take labels of whole videos."""
        return self.rows == "every" or self.video_labels > 0 or self.mined_negatives > 0

    def rows_of(self, start: int, num_frames: int) -> np.ndarray:
        """The frames of the segment from `start` in a video of `num_frames`: int64 [frames]."""
        end = start + SEGMENT_FRAMES
        around = [np.arange(start, end), np.arange(start - self.context, start), np.arange(end, end + self.context)]
        # Middles of `whole` equal parts of the video.
        spread = (2 * np.arange(self.whole) + 1) * num_frames // (2 * max(self.whole, 1))
        return np.clip(np.concatenate([*around, spread]), 0, num_frames - 1)


class _Rows(NamedTuple):
    """The rows of a shard, and its ratings; those of row i are `first[i]` to `first[i + 1]`.

    records   int32 [N], the record of each row
    starts    int32 [N], the first frame
    first     int64 [N + 1]
    classes   int32 [R]
    positive  bool [R]
    """

    records: np.ndarray
    starts: np.ndarray
    first: np.ndarray
    classes: np.ndarray
    positive: np.ndarray


class SegmentDataset(Dataset):
    """The segments of the records in a list of shards; made by `open_segments`.

    It has the attributes of a `Dataset`, with rows in place of records: `counts`, `num_records`, keys and numbers count
    segments, in the order of their records and of their starts. Ids are `id:start`. `read_drawn` draws negatives, not
    frames.

    rated_classes  int64 [C], the classes that are rated anywhere, ascending; none with the rows `every`
    """

    def __init__(
        self,
        shards: list[Shard],
        spec: FeatureSpec,
        classes: int,
        cut: SegmentCut,
        on_damaged: OnDamaged,
        targets: Targets,
        progress: Progress,
    ):
        if spec.level != "frame":
            raise InputError("segments are frames of a video, and video-level records have none; use frame-level ones")
        super().__init__(shards, spec, classes, MOST_VALUES, on_damaged, targets, progress)
        self.segment_cut = cut
        self._rows = [self._find_rows(number, int(count)) for number, count in enumerate(self.counts)]
        self._record_counts = self.counts
        self.counts = np.array([len(rows.records) for rows in self._rows], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.rated_classes = np.unique(np.concatenate([rows.classes for rows in self._rows])).astype(np.int64)
        if not self.num_records:
            what = "rates a segment" if cut.rows == "rated" else f"has {SEGMENT_FRAMES} frames"
            raise InputError(f"no record of {shards[0].path} {what}; topgb data inspect counts what there is")

    @property
    def most_frames(self) -> int:
        """The frames of every row."""
        return self.segment_cut.frames

    def read_batch(self, records: Sequence[RecordKey]) -> Batch:
        """The rows `records`, as `read_drawn` reads them in epoch 0 under seed 0."""
        batch, damaged = self.read_drawn(records, FrameSampling(), 0, 0)
        self.note_damage(damaged)
        return batch

    def read_drawn(self, keys: Sequence[RecordKey], sampling: FrameSampling, seed: int, epoch: int) -> LoadedBatch:
        """The rows `keys` with labels and weights. Raises `InputError` for a `sampling`: a row has all its frames."""
        if sampling.mode != "all":
            raise InputError("segments are looked at whole; set the frame sampling to 'all'")
        cut, taken = self.segment_cut, list[int]()

        def pick(position: int, num_frames: int) -> np.ndarray:
            # Called for the records that can be read only.
            taken.append(position)
            shard, row = keys[position]
            return cut.rows_of(int(self._rows[shard].starts[row]), num_frames)

        places = [(shard, int(self._rows[shard].records[row])) for shard, row in keys]
        batch, damaged = self.read_sampled(places, pick, cut.frames)
        rows = [keys[position] for position in taken]
        ids = [segment_name(who, self.start_of(key)) for who, key in zip(batch.ids, rows, strict=True)]
        batch = replace(batch, ids=ids)
        if cut.rows == "every" or not rows:
            return batch, damaged
        labels = np.zeros((len(rows), self.classes), np.bool_)
        weights = np.zeros((len(rows), self.classes), np.float32)
        for position, key in enumerate(rows):
            videos = None if batch.labels is None else batch.labels[position].numpy()
            self._set_targets(key, videos, labels[position], weights[position], (seed, epoch))
        return replace(batch, labels=torch.from_numpy(labels), weights=torch.from_numpy(weights)), damaged

    def start_of(self, key: RecordKey) -> int:
        """The first frame of a row."""
        return int(self._rows[key[0]].starts[key[1]])

    def identity_of(self, record: RecordKey) -> RecordIdentity | None:
        """The id of a row, and its positive classes; with the rows `every` the labels of its video."""
        shard, row = record
        who = super().identity_of((shard, int(self._rows[shard].records[row])))
        if who is None:
            return None
        name = segment_name(who.id, self.start_of(record))
        if self.segment_cut.rows == "every":
            return RecordIdentity(name, who.labels, None)
        classes, positive = self._ratings(record)
        return RecordIdentity(name, classes[positive].tolist(), None)

    def rating_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """How many segments each class was found in, and for how many it was rated: both int64 [V]."""
        positive = [rows.classes[rows.positive] for rows in self._rows]
        rated = [rows.classes for rows in self._rows]
        found, asked = (np.bincount(np.concatenate(each), minlength=self.classes) for each in (positive, rated))
        return found, asked

    def repeated(self) -> None:
        """Nothing: whether a video occurs twice is found by its id, where the data set is one of videos."""

    def _ratings(self, key: RecordKey) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows[key[0]]
        span = slice(rows.first[key[1]], rows.first[key[1] + 1])
        return rows.classes[span], rows.positive[span]

    def _set_targets(
        self,
        key: RecordKey,
        of_video: np.ndarray | None,
        labels: np.ndarray,
        weights: np.ndarray,
        draw: tuple[int, int],
    ) -> None:
        """Fill a row's `labels` and `weights`, both [V] and all 0; `of_video` are the labels of its video, bool [V]."""
        cut = self.segment_cut
        classes, positive = self._ratings(key)
        if of_video is not None and cut.video_labels:
            labels[of_video] = True
            weights[of_video] = cut.video_labels
        labels[classes] = positive
        weights[classes] = 1.0
        if cut.mined_negatives:
            excluded = weights > 0
            if of_video is not None:
                excluded |= of_video
            rows = self._rows[key[0]]
            first, end = np.searchsorted(rows.records, [rows.records[key[1]], rows.records[key[1]] + 1])
            span = slice(rows.first[first], rows.first[end])
            excluded[rows.classes[span][rows.positive[span]]] = True
            candidates = self.rated_classes[~excluded[self.rated_classes]]
            stream = np.random.Philox(
                key=np.array(draw, np.uint64), counter=np.array([0, self.number(key), _NEGATIVES, 0], np.uint64)
            )
            drawn = np.random.Generator(stream).permutation(candidates)[: cut.mined_negatives]
            weights[drawn] = 1.0

    def _find_rows(self, shard: int, count: int) -> _Rows:
        records, starts, first = list[int](), list[int](), [0]
        classes, positive = list[np.ndarray](), list[np.ndarray]()
        found: list[DamagedRecordError] = []
        for record in range(count):
            with NoteDamage(found, self.on_damaged):
                opened = self._cache.get(self.shards[shard])
                payload, place = opened.data(record), opened.place(record)
                if self.segment_cut.rows == "every":
                    here = range(0, count_frames(payload, self._layout) - SEGMENT_FRAMES + 1, SEGMENT_FRAMES)
                    records += [record] * len(here)
                    starts += here
                    first += [0] * len(here)
                    continue
                ratings = read_ratings(read_context(payload, self._layout, place), place, self.classes)
                if ratings is None:
                    continue
                for start in np.unique(ratings.starts).tolist():
                    rated = np.flatnonzero(ratings.starts == start)
                    records.append(record)
                    starts.append(start)
                    first.append(first[-1] + len(rated))
                    classes.append(ratings.classes[rated])
                    positive.append(ratings.positive[rated])
        self.note_damage(found)
        return _Rows(
            np.array(records, np.int32),
            np.array(starts, np.int32),
            np.array(first, np.int64),
            np.concatenate([np.zeros(0, np.int32), *classes]).astype(np.int32),
            np.concatenate([np.zeros(0, np.bool_), *positive]).astype(np.bool_),
        )


def open_segments(
    pattern: str | Sequence[str],
    spec: FeatureSpec,
    classes: int,
    cut: SegmentCut,
    on_damaged: OnDamaged = "stop",
    targets: Targets | None = None,
    progress: Progress = SILENT,
) -> SegmentDataset:
    """Find the shards of `pattern` and their segments; goes through the records' contexts, not their frames.

    Labels of videos are read where `cut` needs them, or `targets` asks for them. Takes about 20 bytes of memory for
    each segment. Raises as `open_dataset` does, and `InputError` if there is no segment.
    """
    if targets is None:
        targets = Targets(cut.of_videos)
    return SegmentDataset(find_shards(pattern), spec, classes, cut, on_damaged, targets, progress)
