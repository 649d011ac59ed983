"""A data set: the records of its shards, read into batches by number, or all of them in file order."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch

from topgb.batch import Batch
from topgb.errors import DamagedRecordError, InputError, TopgbError, option
from topgb.features import FeatureSpec
from topgb.progress import SILENT, Progress
from topgb.records.batch_buffers import empty_features, label_matrix
from topgb.records.codec import DecodedRecord, decode_record, read_identity
from topgb.records.framing import ShardSize
from topgb.records.labels import LABELS, Targets, label_advice
from topgb.records.layout import Layout
from topgb.records.on_damaged import NoteDamage, OnDamaged, note, raise_damage
from topgb.records.protobuf_decoding import RecordIdentity, parse_record
from topgb.records.repeated import IdHashes, Repeated
from topgb.records.sampling import EVERY_FRAME, Cut, FrameSampling, sampled_rows, sampling_for
from topgb.records.shard_sizes import MeasuredShard, ShardMeasure, is_large
from topgb.records.shards import OpenShard, Shard, ShardCache, find_shards

# (shard number, record number in the shard), both from 0.
RecordKey = tuple[int, int]
# (position in the request, frames of the video) -> rows to take, or None for all in order.
RowPicker = Callable[[int, int], np.ndarray | None]


# A batch, and the damaged records left out of it.
LoadedBatch = tuple[Batch, list[DamagedRecordError]]


class Dataset:
    """The records in a list of shards; made by `open_dataset`.

    shards       in name order
    counts       int64 [S], records of each shard that can be reached
    num_records  their sum
    cut          frames beyond `max_frames`, which batches leave out
    teacher      source of the teacher's scores in batches, or None for batches without scores
    damaged      the damaged records found so far, each once (always empty with `on_damaged="stop"`)
    ids          hashes of the ids that `evaluation_batches` has read

    A data set can be pickled; the process that receives it opens the files again.
    """

    def __init__(
        self,
        shards: list[Shard],
        spec: FeatureSpec,
        classes: int,
        max_frames: int,
        on_damaged: OnDamaged,
        targets: Targets = LABELS,
        progress: Progress = SILENT,
    ):
        self.shards, self.spec, self.classes, self.teacher = shards, spec, classes, targets.teacher
        self.max_frames, self.on_damaged = max_frames, on_damaged
        self.damaged: list[DamagedRecordError] = []
        soft_classes = classes if targets.teacher == "records" else None
        known_labels = classes if targets.labels is True else None
        self._layout = Layout(spec, known_labels, soft_classes, targets.labels == "check")
        self._measure, known = ShardMeasure(self._layout, max_frames), {}
        if large := is_large(shards):
            from topgb.records.known_sizes import known_sizes

            known = known_sizes(shards, self._measure, progress)
        self.ids = IdHashes()
        self._cache, self.cut = ShardCache(use_known=large), Cut(max_frames)
        measured = [known.get(shard) or self._measure_shard(shard) for shard in shards]
        for shard in measured:
            self.cut.add_all(shard.cut)
        self._shard_sizes = [shard.size for shard in measured]
        self.counts = np.array([size.records for size in self._shard_sizes], np.int64)
        self._longest = max(size.longest for size in self._shard_sizes)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        if not self.num_records:
            files = shards[0].path if len(shards) == 1 else f"any of {len(shards)} files, {shards[0].path} the first"
            raise InputError(f"no record can be read from {files}; topgb data verify says why")

    @property
    def num_records(self) -> int:
        """The number of records that can be reached, over all shards."""
        return int(self._starts[-1])

    @property
    def most_frames(self) -> int:
        """An upper bound on the frames that a video gives to a batch, known without reading a record."""
        return self._measure.frames_within(self._longest)

    def fingerprint(self) -> list[list]:
        """[name, number of records, bytes of their data, digest] of each shard, in order.

        Equal lists mean equal records. Names have no folder, so a data set keeps its fingerprint when it is moved. The
        digest is of the records' CRCs.
        """
        return [[shard.name, *found[:3]] for shard, found in zip(self.shards, self._shard_sizes, strict=True)]

    def repeated(self) -> Repeated | None:
        """Videos that occur more than once among those that `evaluation_batches` has read, if any."""

        def read_ids(path: str) -> Iterator[str]:
            # Imported here, because few data sets have any.
            from topgb.records.ids import readable_ids

            return readable_ids(path)

        return self.ids.repeated([shard.path for shard in self.shards], read_ids)

    def key(self, number: int) -> RecordKey:
        """The key of the record with `number`, which counts over the shards in name order."""
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return shard, number - int(self._starts[shard])

    def number(self, key: RecordKey) -> int:
        """The number of the record with `key`, counted over the shards in name order."""
        return int(self._starts[key[0]]) + key[1]

    def note_damage(self, found: Sequence[DamagedRecordError]) -> None:
        """Add to `damaged` the errors that are not there yet; workers find the same record in every epoch."""
        if not found:
            return
        known = {(error.path, error.record) for error in self.damaged}
        for error in found:
            if (error.path, error.record) not in known:
                known.add((error.path, error.record))
                note(error, self.damaged)

    def read_batch(self, records: Sequence[RecordKey]) -> Batch:
        """Read `records`, in that order, with all their frames up to `max_frames`; T is the most frames of any.

        Every record's CRC is checked. Raises `InputError` if a record does not fit the spec or if labelled and
        unlabelled records are mixed, and `DamagedRecordError` for a record that cannot be read. With
        `on_damaged="skip"` such a record is left out of the batch and added to `damaged`.
        """
        batch, found = self.read_sampled(records, lambda position, frames: None, None)
        self.note_damage(found)
        return batch

    def read_sampled(self, records: Sequence[RecordKey], pick_rows: RowPicker, frames: int | None) -> LoadedBatch:
        """Like `read_batch`, with the rows that `pick_rows` picks of each video: `frames`, or None if that varies.

        Damaged records are returned, not added to `damaged`.
        """
        # Room for an upper bound of frames, because the true number is known only at the end. In return each record is
        # checked, decoded and copied in one go, while its bytes are in the processor's cache.
        opened_records = [(self._opened_shard(*key), key[1]) for key in records]
        longest = frames or self._measure.frames_within(
            max((int(opened.index.lengths[record]) for opened, record in opened_records), default=0)
        )
        features, array = empty_features(len(records), longest, self.spec)
        videos: list[DecodedRecord] = []
        num_frames, paths = [], []
        damaged: list[DamagedRecordError] = []
        for position, (opened, record) in enumerate(opened_records):
            with NoteDamage(damaged, self.on_damaged):
                data, place = opened.checked(record)
                video = decode_record(data, self._layout, place)
                usable = min(video.num_frames, self.max_frames)
                rows = pick_rows(position, usable)
                taken = usable if rows is None else len(rows)
                row = array[len(videos)]
                video.copy_frames(row[:taken], rows)
                row[taken:] = 0
                videos.append(video)
                num_frames.append(taken)
                paths.append(opened.shard.path)
        labels = label_matrix(videos, paths, self._layout.classes, self.teacher)
        teacher = self._teacher_rows(videos)
        if len(videos) < len(records) or max(num_frames, default=longest) < longest:
            # NumPy makes the copy, because torch would wake all its threads for it.
            features = torch.from_numpy(array[: len(videos), : max(num_frames, default=1)].copy())
        lengths = torch.tensor(num_frames, dtype=torch.int32)
        return Batch([video.id for video in videos], features, lengths, labels, teacher), damaged

    def read_drawn(self, keys: Sequence[RecordKey], sampling: FrameSampling, seed: int, epoch: int) -> LoadedBatch:
        """Like `read_sampled`, with the frames that `sampling` draws, keyed by (seed, epoch, record)."""
        numbers = [self.number(key) for key in keys]
        return self.read_sampled(
            keys,
            lambda position, frames: sampled_rows(sampling, frames, seed, epoch, numbers[position]),
            sampling.count or None,
        )

    def _measure_shard(self, shard: Shard) -> MeasuredShard:
        """Open a shard and measure it; all 0 if the shard is damaged from the start and skipped."""
        found: list[DamagedRecordError] = []
        measured = MeasuredShard(ShardSize(), Cut(self.max_frames))
        with NoteDamage(found, self.on_damaged):
            opened = self._cache.get(shard)
            measured = self._measure(opened)
            raise_damage(opened)
        self.note_damage(found)
        return measured

    def _opened_shard(self, shard: int, record: int) -> OpenShard:
        """The opened shard. Raises `InputError` if it no longer has the record."""
        opened = self._cache.get(self.shards[shard])
        if record >= len(opened):
            raise InputError(
                f"{opened.shard.path} holds {len(opened)} records, {int(self.counts[shard])} when it was opened first; "
                "leave the files alone while they are in use, and start again"
            )
        return opened

    def label_advice(self, shard: int = 0) -> str:
        """The remedy for records without labels, in words, after a look at the first record of a shard."""
        context = None
        with suppress(InputError):
            opened = self._opened_shard(shard, 0)
            context = parse_record(opened.data(0), opened.place(0)).context
        return label_advice(context)

    def identity_of(self, record: RecordKey) -> RecordIdentity | None:
        """The identity of one record, read without its frames; None if the record is damaged and skipped.

        A record's CRC covers its frames too, so it is checked only if something is wrong.
        """
        shard, number = record
        opened = self._opened_shard(shard, number)
        found: list[DamagedRecordError] = []
        who = None
        with NoteDamage(found, self.on_damaged):
            try:
                who = read_identity(opened.data(number), self._layout, opened.place(number))
            except TopgbError:
                opened.checked(number)
                raise
        self.note_damage(found)
        return who

    def _teacher_rows(self, videos: list[DecodedRecord]) -> torch.Tensor | None:
        """The teacher's scores for these videos, float16 [B, V], or None for a data set without a teacher."""
        if self.teacher is None:
            return None
        if not isinstance(self.teacher, str):
            return self.teacher.rows([video.id for video in videos])
        rows = np.empty((len(videos), self.classes), np.float16)
        for row, video in zip(rows, videos, strict=True):
            row[:] = video.predictions
        return torch.from_numpy(rows)


def open_dataset(
    pattern: str | Sequence[str],
    spec: FeatureSpec,
    classes: int,
    max_frames: int,
    on_damaged: OnDamaged = "stop",
    targets: Targets = LABELS,
    progress: Progress = SILENT,
) -> Dataset:
    """Find the shards of `pattern` (see `find_shards`) and count their records.

    Batches take at most the first `max_frames` frames of a video. With `on_damaged` "stop", a file that is cut off or
    damaged in its framing raises `DamagedRecordError` already here; with "skip", the records before the break are used.
    Raises `InputError` if nothing matches, if no record can be read, or if the teacher has another number of classes.

    The places of the records in local shards of a large data set are kept in the cache folder (`known_sizes.py`);
    `progress` shows the walk that finds them. Remote shards are fetched here, to count their records, and
    gzip-compressed ones are unpacked if nothing was kept of them. A process keeps the 64 shards that it opened last;
    any other shard is fetched or unpacked again when its records are read.
    """
    teacher = targets.teacher
    if teacher is not None and not isinstance(teacher, str) and teacher.classes != classes:
        raise InputError(
            f"the teacher of {teacher.folder} knows {teacher.classes} classes, the student {classes}; "
            "they need the same classes"
        )
    return Dataset(find_shards(pattern), spec, classes, max_frames, on_damaged, targets, progress)


def evaluation_batches(
    dataset: Dataset,
    batch_size: int,
    shards: Sequence[int] | None = None,
    sampling: FrameSampling = EVERY_FRAME,
    seed: int = 0,
    round_number: int = 0,
) -> Iterator[Batch]:
    """Read every record once, in file order, from the shards with the numbers `shards` (default: all).

    No batch crosses a shard, and sampled frames depend on (seed, round, record) alone. So any division of the shards
    gives the same batches, and any batch size gives the same videos. Batches that are empty because all their records
    are damaged are left out. Raises the errors of `Dataset.read_batch` and `sampling_for`.
    """
    sampling = sampling_for(sampling, dataset.spec.level, dataset.max_frames, option("frames"))
    for shard in range(len(dataset.shards)) if shards is None else shards:
        count = int(dataset.counts[shard])
        dataset.ids.begin(shard)
        for start in range(0, count, batch_size):
            keys = [(shard, record) for record in range(start, min(start + batch_size, count))]
            batch, damaged = dataset.read_drawn(keys, sampling, seed, round_number)
            dataset.note_damage(damaged)
            dataset.ids.add(batch.ids)
            if len(batch):
                yield batch
