"""Open a data set as large as YouTube-8M: the first time, when all its records are looked for, and again.

    python benchmarks/opening.py [--shards 3844] [--records 1561] [--folder DIR] [--milliseconds 0.1]

There are as many shards and records as in YouTube-8M, but a record has some hundred bytes, so that all of them take
half a gigabyte. A walk reads headers alone. Where records are long and not in the page cache, each header costs a read
from the disk besides, of `--milliseconds`; this is added by arithmetic, once for each record, and divided by the
threads. "cold" drops the shards and the cache folder from the page cache first, as far as a program can do that.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from topgb.features import Feature, FeatureSpec
from topgb.records import shard_sizes
from topgb.records.codec import encode_example
from topgb.records.dataset import Dataset, open_dataset
from topgb.records.framing import frame_record
from topgb.records.known_framing import SETTLED_NS, forget_all
from topgb.records.known_sizes import THREADS
from topgb.records.shards import find_shards

SPEC = FeatureSpec("video", (Feature("rgb", 8, "float32"),))
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=3844)
    parser.add_argument("--records", type=int, default=1561, help="of each shard")
    parser.add_argument("--folder", type=Path, help="where the shards are written, and removed at the end")
    parser.add_argument("--milliseconds", type=float, default=0.1, help="of one small read from the disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name, "shards")
        os.environ["XDG_CACHE_HOME"] = name
        write_shards(folder, options.shards, options.records)
        report(folder, options.milliseconds / 1000)


def write_shards(folder: Path, shards: int, records: int) -> None:
    """Write shards that are all alike, and let them settle: what was written in the last seconds is not kept."""
    folder.mkdir()
    whole = frame_record(encode_example("video", {"rgb": np.zeros(8, np.float32)}, [0])) * records
    for number in range(shards):
        (folder / f"train{number:04d}.tfrecord").write_bytes(whole)
    # Only what is on the disk can be dropped from the page cache.
    os.sync()
    time.sleep(SETTLED_NS / 1e9 + 1)


def report(folder: Path, read_seconds: float) -> None:
    """Print seconds of opening, medians of `ROUNDS`."""
    pattern = str(folder / "*.tfrecord")
    cache = Path(os.environ["XDG_CACHE_HOME"], "topgb")
    records = opened(pattern).num_records
    files = len(find_shards(pattern))
    cold_reads = records * read_seconds
    rows = [
        ("finding the files alone", seconds(lambda: find_shards(pattern)), 0.0),
        ("one after another, nothing kept", seconds(lambda: opened(pattern, keep=False)), cold_reads),
        ("the first time", seconds(lambda: opened(pattern), lambda: forget_all(str(folder))), cold_reads / THREADS),
        ("again", seconds(lambda: opened(pattern)), 0.0),
        ("again, cold", seconds(lambda: opened(pattern), lambda: drop_pages(folder, cache)), 0.0),
    ]
    kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    print(f"{files:,} shards, {records:,} records; kept {kept / 1e6:.1f} MB\n")
    print("| opening | s | with a read from the disk for each record, s |")
    print("|---|---|---|")
    for name, found, extra in rows:
        print(f"| {name} | {found:.2f} | {found + extra:,.0f} |" if extra else f"| {name} | {found:.2f} | |")


def opened(pattern: str, keep: bool = True) -> Dataset:
    """Open the shards; without `keep` as a small data set is opened."""
    if keep:
        return open_dataset(pattern, SPEC, 1, 1)
    limits = shard_sizes.LEAST_SHARDS, shard_sizes.LEAST_BYTES
    shard_sizes.LEAST_SHARDS = shard_sizes.LEAST_BYTES = 1 << 62
    try:
        return open_dataset(pattern, SPEC, 1, 1)
    finally:
        shard_sizes.LEAST_SHARDS, shard_sizes.LEAST_BYTES = limits


def drop_pages(*folders: Path) -> None:
    """Drop the pages of all files in `folders` from the page cache."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """The median time of `call`, each time after `before`."""
    found = []
    for _ in range(ROUNDS):
        before()
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return median(found)


if __name__ == "__main__":
    main()
