"""The order in which training goes through a data set: a pure function of record counts, seed and epoch."""

import numpy as np

# Records lie in files in the order in which they were written, and may be alike where they are neighbours. Drawing
# from the whole set would mix best, but jump to another place on the disk for every record. So: shards are drawn
# for the epoch, and within a window of a few of them runs of neighbours are shuffled, which the disk and the page
# cache serve in one go; then the records of many runs are mixed. Neighbours in a file end up in the same thousand
# records, in no order; which thousand, and beside whom, changes with every epoch.
WINDOW_RECORDS = 16_384
BLOCK_RECORDS = 16
POOL_BLOCKS = 64


def epoch_order(counts: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Every record of a data set once, as int64 [N] numbers counted over the shards in name order.

    `counts`, int [S], is the number of records of each shard.
    """
    starts = np.concatenate([[0], np.cumsum(counts)])
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    windows = _windows(generator.permutation(len(counts)), np.asarray(counts))
    if not windows:
        return np.zeros(0, np.int64)
    return np.concatenate(
        [
            _shuffle_window(np.concatenate([np.arange(starts[s], starts[s + 1]) for s in window]), generator)
            for window in windows
        ]
    )


def _windows(shards: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """`shards` cut, in their order, into runs of at least a window's records; a short rest joins the last run."""
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
    blocks = np.arange(len(records)) // BLOCK_RECORDS
    rank = generator.permutation(blocks[-1] + 1) if len(records) else blocks
    records = records[np.argsort(rank[blocks], kind="stable")] if len(records) else records
    pools = np.arange(len(records)) // (BLOCK_RECORDS * POOL_BLOCKS)
    return records[np.lexsort((generator.random(len(records)), pools))]


def piece(total: int, pieces: int, number: int) -> tuple[int, int]:
    """Start and stop of piece `number` of `total` items cut in `pieces` whose sizes differ by one at most."""
    size, longer = divmod(total, pieces)
    start = number * size + min(number, longer)
    return start, start + size + (number < longer)
