"""A data set's shards as the pieces of a job."""

from topgb.errors import DamagedRecordError
from topgb.jobs.engine import Piece
from topgb.records.dataset import Dataset


def shard_pieces(dataset: Dataset) -> list[Piece]:
    """One piece per shard; its size is the shard's number of records."""
    return [
        Piece(number, shard.path, int(count))
        for number, (shard, count) in enumerate(zip(dataset.shards, dataset.counts, strict=True))
    ]


def shared_files(dataset: Dataset) -> list[str]:
    """A file that every node must see if it can read the records: the first shard that is not remote, if any."""
    return [shard.path for shard in dataset.shards if not shard.remote][:1]


def damage_in(dataset: Dataset, shard: int) -> list[DamagedRecordError]:
    """The damaged records found so far in shard number `shard`."""
    return [error for error in dataset.damaged if error.path == dataset.shards[shard].path]
