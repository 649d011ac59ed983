"""The order in which training goes through a data set: a pure function of record counts, seed and epoch."""

import numpy as np

# An epoch makes three permutations: of all shards, of the blocks of 16 neighbouring records in a window of shards, and
# of the single records in a pool of 64 such blocks.
# Neighbours in a file may be alike, so they must be mixed. Drawing from the whole set would mix best, but it would jump
# to another place on the disk for every record; the disk and the page cache serve a block in one go. Neighbours end up
# in the same pool of a thousand records, in random order. Which pool, and with which other blocks, changes every epoch.
WINDOW_RECORDS = 16_384
BLOCK_RECORDS = 16
POOL_BLOCKS = 64


def epoch_order(counts: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """A permutation of a data set's records, int64 [N]: numbers that count over the shards in name order.

    `counts`, int [S], is the number of records of each shard.
    """
    starts = np.concatenate([[0], np.cumsum(counts)])
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    windows = _cut_windows(generator.permutation(len(counts)), np.asarray(counts))
    if not windows:
        return np.zeros(0, np.int64)
    return np.concatenate(
        [
            _shuffle_window(np.concatenate([np.arange(starts[s], starts[s + 1]) for s in window]), generator)
            for window in windows
        ]
    )


def _cut_windows(shards: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """Cut `shards`, in their order, into windows of at least `WINDOW_RECORDS` records; a short rest joins the last."""
    windows: list[list[int]] = []
    current: list[int] = []
    held = 0
    for shard in shards.tolist():
        current.append(shard)
        held += int(counts[shard])
        if held >= WINDOW_RECORDS:
            windows.append(current)
            current, held = [], 0
    if current and windows:
        windows[-1] += current
    elif current:
        windows.append(current)
    return windows


def _shuffle_window(records: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Permute the blocks of a window's `records`, int64 [n], then the records within each pool of blocks."""
    blocks = np.arange(len(records)) // BLOCK_RECORDS
    rank = generator.permutation(blocks[-1] + 1) if len(records) else blocks
    records = records[np.argsort(rank[blocks], kind="stable")] if len(records) else records
    pools = np.arange(len(records)) // (BLOCK_RECORDS * POOL_BLOCKS)
    return records[np.lexsort((generator.random(len(records)), pools))]


def piece(total: int, pieces: int, number: int) -> tuple[int, int]:
    """Start and stop of piece `number`, when `total` items are cut into `pieces` whose sizes differ by one at most."""
    size, longer = divmod(total, pieces)
    start = number * size + min(number, longer)
    return start, start + size + (number < longer)
