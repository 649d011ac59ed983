"""Training's batches: shuffled, numbered by global step, and read ahead by worker processes if asked."""

from collections.abc import Generator

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from topgb.errors import InputError, TopgbError, option
from topgb.records.dataset import Dataset, LoadedBatch
from topgb.records.order import epoch_order, piece
from topgb.records.reader_processes import prepare_reader, reading_ahead
from topgb.records.sampling import FrameSampling, sampling_for


class TrainingBatches(TorchDataset[LoadedBatch]):
    """Rank `rank`'s batches, numbered by global step (from 0, counting on through the epochs).

    An epoch's N records, shuffled by (seed, epoch), are cut into ceil(N / (batch_size · ranks)) steps, and the records
    of a step are divided among the ranks. Sizes differ by one at most, both of steps and of the ranks' batches in a
    step, so no batch is much smaller than the others. Every record occurs once in an epoch. `batch_size` is the most
    videos in a rank's batch.

    The records of a batch and their frames depend on the data, seed, step and number of ranks alone.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, seed: int, sampling: FrameSampling, rank: int = 0, ranks: int = 1
    ):
        if batch_size < 1 or seed < 0:
            raise InputError(f"batch size {batch_size} or seed {seed} is too small; the least are 1 and 0")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.sampling = sampling_for(sampling, dataset.spec.level, dataset.max_frames, "'training.frames'")
        self.rank, self.ranks = rank, ranks
        self.steps_per_epoch = -(-dataset.num_records // (batch_size * ranks))
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """The steps of one epoch; greater steps belong to the following epochs."""
        return self.steps_per_epoch

    def epoch_of(self, step: int) -> int:
        """The epoch of `step`, from 0."""
        return step // self.steps_per_epoch

    def examples_before(self, step: int) -> int:
        """The number of records that all ranks together read before `step`, damaged ones included."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        total = self.dataset.num_records
        return epoch * total + piece(total, self.steps_per_epoch, step_in_epoch)[0]

    def records_of(self, step: int) -> np.ndarray:
        """The numbers, over the shards in name order, of the records in this rank's batch at `step`; int64 [B]."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, epoch_order(self.dataset.counts, self.seed, epoch)
        start, stop = piece(self.dataset.num_records, self.steps_per_epoch, step_in_epoch)
        first, last = piece(stop - start, self.ranks, self.rank)
        return self._order[1][start + first : start + last]

    def __getitem__(self, step: int) -> LoadedBatch:
        """The batch of `step`, and the damaged records left out of it (always none with `on_damaged="stop"`).

        T is the sampling's count if it has one. A batch has no videos if all its records are damaged, or if there are
        fewer records than ranks. Raises as `Dataset.read_batch`.
        """
        keys = [self.dataset.key(number) for number in self.records_of(step).tolist()]
        return self.dataset.read_drawn(keys, self.sampling, self.seed, self.epoch_of(step))

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_order": None}


class _ErrorsAsValues(TorchDataset):
    """Returns errors as values, because `DataLoader` would try to rebuild an error from the text of a traceback."""

    def __init__(self, batches: TrainingBatches):
        self.batches = batches

    def __getitem__(self, step: int) -> LoadedBatch | TopgbError:
        try:
            return self.batches[step]
        except TopgbError as error:
            return error


def load_batches(
    batches: TrainingBatches, steps: range, workers: int = 0, pin_memory: bool = False
) -> Generator[LoadedBatch, None, None]:
    """The batches of `steps` in order, read ahead by `workers` processes (0: each is read here, when asked for).

    Each batch comes with the damaged records left out of it, which are also added to this process's data set. Raises as
    `TrainingBatches.__getitem__`, and `TopgbError` where a worker is lost. Closing the iterator ends the workers.
    """
    loader: DataLoader = DataLoader(
        _ErrorsAsValues(batches),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=prepare_reader,
    )
    with reading_ahead(loader) as items:
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except (ConnectionError, EOFError) as error:
                # The process ended while it handed a batch over; at other moments PyTorch itself raises a RuntimeError.
                raise lost_reader(str(error) or "its connection broke") from error
            if isinstance(item, TopgbError):
                raise item
            batches.dataset.note_damage(item[1])
            yield item


def lost_reader(reason: str) -> TopgbError:
    """The error for a worker process that has ended before its work, as when the system lacks memory."""
    return TopgbError(
        f"a process that reads records ahead was lost ({reason}); go on with {option('resume', True)}, or with fewer "
        f"{option('workers')}"
    )
