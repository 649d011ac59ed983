"""A data set and the batches made of it: shuffled for training, in file order for evaluation."""

import signal
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from topgb.batch import Batch
from topgb.errors import DamagedRecordError, InputError, TopgbError
from topgb.features import FeatureSpec
from topgb.records.order import epoch_order, piece
from topgb.records.reading import Dataset, OnDamaged, RecordKey, TeacherSource
from topgb.records.sampling import EVERY_FRAME, FrameSampling, sampled_rows, sampling_for
from topgb.records.shards import find_shards
from topgb.records.teacher import Teacher

LoadedBatch = tuple[Batch, list[DamagedRecordError]]


def open_dataset(
    pattern: str | Sequence[str],
    spec: FeatureSpec,
    classes: int,
    max_frames: int,
    on_damaged: OnDamaged = "stop",
    with_labels: bool = True,
    teacher: TeacherSource | None = None,
) -> Dataset:
    """Find the shards of `pattern` (see `find_shards`) and count their records.

    `max_frames` is how many frames of a video are looked at; the rest of a longer one is left out. With `on_damaged`
    "stop", a file that is cut off or damaged in its framing raises `DamagedRecordError` here already; with "skip" the
    records before the break are used. Without `with_labels`, labels are not looked at, whatever they are, and batches
    have none. With a `teacher` batches hold its scores. Raises `InputError` where nothing matches, no record can be
    read, or the teacher knows other classes.

    Remote and gzip-compressed shards are fetched and unpacked here, to count their records. A process keeps the 64
    shards opened last; any other is fetched again when its records are read.
    """
    if isinstance(teacher, Teacher) and teacher.classes != classes:
        raise InputError(
            f"the teacher of {teacher.folder} knows {teacher.classes} classes, the student {classes}; "
            "they need the same classes"
        )
    return Dataset(find_shards(pattern), spec, classes, max_frames, on_damaged, with_labels, teacher)


def evaluation_batches(
    dataset: Dataset,
    batch_size: int,
    shards: Sequence[int] | None = None,
    sampling: FrameSampling = EVERY_FRAME,
    seed: int = 0,
    round_number: int = 0,
) -> Iterator[Batch]:
    """Every record once, in file order, from the shards numbered `shards` (default all).

    A batch never crosses a shard, and draws of frames are keyed by (seed, round, record), so any division of the shards
    gives the same batches, and any batch size the same videos. Batches that are empty because all their records are
    damaged are left out. Raises as `Dataset.read_batch`, and as `sampling_for`.
    """
    sampling = sampling_for(sampling, dataset.spec.level, dataset.max_frames)
    for shard in range(len(dataset.shards)) if shards is None else shards:
        count = int(dataset.counts[shard])
        for start in range(0, count, batch_size):
            keys = [(shard, record) for record in range(start, min(start + batch_size, count))]
            batch, damaged = _read(dataset, keys, sampling, seed, round_number)
            dataset.note_damage(damaged)
            if len(batch):
                yield batch


def _read(dataset: Dataset, keys: list[RecordKey], sampling: FrameSampling, seed: int, epoch: int) -> LoadedBatch:
    """The records of `keys` with the frames that `sampling` takes of them, and their damage."""
    numbers = [dataset.number(key) for key in keys]
    return dataset.read_sampled(
        keys,
        lambda position, frames: sampled_rows(sampling, frames, seed, epoch, numbers[position]),
        sampling.count or None,
    )


def label_counts(dataset: Dataset, limit: int | None = None) -> tuple[np.ndarray, int]:
    """How often each class occurs, int64 [V], and in how many labelled videos, without reading frames.

    `limit` is the most records to look at, spread evenly over the data set; None for all. Raises as `read_batch`.
    """
    counts = np.zeros(dataset.classes, np.int64)
    videos = 0
    for number in _spread(dataset, limit):
        labels = dataset.labels_of(dataset.key(number))
        if labels is not None:
            videos += 1
            # As in a batch, a class that a record names twice counts once.
            counts[list(set(labels))] += 1
    return counts, videos


def teacher_mean(dataset: Dataset, limit: int) -> np.ndarray:
    """float64 [V]: the mean of the teacher's scores over at most `limit` videos, spread evenly, without reading frames.

    The data set must have a teacher. Raises as `read_batch`.
    """
    if isinstance(dataset.teacher, Teacher):
        return dataset.teacher.mean(limit)
    total, videos = np.zeros(dataset.classes), 0
    for number in _spread(dataset, limit):
        who = dataset.identity_of(dataset.key(number))
        if who is not None and who.predictions is not None:
            total += who.predictions
            videos += 1
    return total / max(1, videos)


def check_teacher_knows(dataset: Dataset) -> None:
    """Raise `InputError` naming a video that the teacher's folder has no scores for, before hours are spent.

    Shards that the teacher was run on are known by their fingerprint; of others every id is read.
    """
    if not isinstance(dataset.teacher, Teacher):
        return
    for shard, fingerprint in enumerate(dataset.fingerprint()):
        if dataset.teacher.covers(fingerprint):
            continue
        for record in range(int(dataset.counts[shard])):
            who = dataset.identity_of((shard, record))
            if who is not None and who.id not in dataset.teacher:
                raise dataset.teacher.lacks(who.id)


def _spread(dataset: Dataset, limit: int | None) -> list[int]:
    """The numbers of at most `limit` records, evenly over the data set."""
    total = dataset.num_records
    numbers = np.arange(total) if limit is None or limit >= total else np.arange(limit) * total // limit
    return numbers.tolist()


class TrainingBatches(TorchDataset[LoadedBatch]):
    """Rank `rank`'s batches, by global step (from 0, on through the epochs).

    An epoch's N records, shuffled by (seed, epoch), are cut in ceil(N / (batch_size · ranks)) steps whose sizes differ
    by one at most, and each step's records among the ranks in the same way: none is lost, none comes twice, and no
    batch is much smaller than the others. `batch_size` is the most videos of one rank's batch.

    Which records and which of their frames form a batch depends on the data, seed, step and number of ranks alone.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, seed: int, sampling: FrameSampling, rank: int = 0, ranks: int = 1
    ):
        if batch_size < 1 or seed < 0:
            raise InputError(f"batch size {batch_size} or seed {seed} is too small; the least are 1 and 0")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.sampling = sampling_for(sampling, dataset.spec.level, dataset.max_frames)
        self.rank, self.ranks = rank, ranks
        self.steps_per_epoch = -(-dataset.num_records // (batch_size * ranks))
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Steps of an epoch; steps beyond it are those of the next epochs."""
        return self.steps_per_epoch

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, that `step` belongs to."""
        return step // self.steps_per_epoch

    def examples_before(self, step: int) -> int:
        """Records that all ranks together went through before `step`, damaged ones included."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        total = self.dataset.num_records
        return epoch * total + piece(total, self.steps_per_epoch, step_in_epoch)[0]

    def records_of(self, step: int) -> np.ndarray:
        """int64 [B]: the numbers, over the shards in name order, of the records of this rank's batch at `step`."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, epoch_order(self.dataset.counts, self.seed, epoch)
        start, stop = piece(self.dataset.num_records, self.steps_per_epoch, step_in_epoch)
        first, last = piece(stop - start, self.ranks, self.rank)
        return self._order[1][start + first : start + last]

    def __getitem__(self, step: int) -> LoadedBatch:
        """The batch of `step`, and the damaged records left out of it (always none with `on_damaged="stop"`).

        T is the sampling's count where it has one, for every video. A batch can be of zero videos: all of its records
        damaged, or fewer records than ranks. Raises as `Dataset.read_batch`.
        """
        keys = [self.dataset.key(number) for number in self.records_of(step).tolist()]
        return _read(self.dataset, keys, self.sampling, self.seed, self.epoch_of(step))

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_order": None}


class _ErrorsAsValues(TorchDataset):
    """Hands errors over as values: `DataLoader` would rebuild an error from a traceback's text, or fail to."""

    def __init__(self, batches: TrainingBatches):
        self.batches = batches

    def __getitem__(self, step: int) -> LoadedBatch | TopgbError:
        try:
            return self.batches[step]
        except TopgbError as error:
            return error


def _leave_the_end_to_main(worker: int) -> None:
    # Terminals and clusters signal whole groups of processes; a worker ends once the one that it reads for has.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.excepthook = _tell_unless_main_has_gone


def _tell_unless_main_has_gone(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    # The thread of `multiprocessing` that hands tensors over tells of every connection that breaks.
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, traceback)


def load_batches(
    batches: TrainingBatches, steps: range, workers: int = 0, pin_memory: bool = False
) -> Iterator[LoadedBatch]:
    """The batches of `steps` in order, read ahead by `workers` processes (0: read here, when asked).

    Notes damage in the data set, so that it is complete in this process, and yields each batch with its own. Raises as
    `TrainingBatches.__getitem__`.
    """
    loader: DataLoader = DataLoader(
        _ErrorsAsValues(batches),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_the_end_to_main,
    )
    for item in loader:
        if isinstance(item, TopgbError):
            raise item
        batches.dataset.note_damage(item[1])
        yield item
