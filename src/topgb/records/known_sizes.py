"""The sizes of a large data set's shards: as known from earlier, else by a walk of all shards in parallel."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

from topgb.errors import TopgbError
from topgb.progress import Progress
from topgb.records.framing import ShardSize, index_of_lengths
from topgb.records.framing_index import MOST_LENGTH, Entry, FramingIndex, Row, Stamp
from topgb.records.known_framing import ends_match, forget_all, keep, one_walker, settled, use
from topgb.records.sampling import Cut
from topgb.records.shard_sizes import MeasuredShard, ShardMeasure, is_large
from topgb.records.shards import Shard, open_shard
from topgb.unpacked_size import check_unpacked

# Threads of a walk: they wait for the disk at the same time, but compute one at a time.
THREADS = 8
# This many known shards of a folder are compared with the disk before all are trusted.
CHECKED = 16
# Seconds after which a walk keeps what it has found so far: it may be killed.
KEEP_SECONDS = 30.0
# Shorter walks show no progress.
QUIET_SECONDS = 1.0


def known_sizes(shards: Sequence[Shard], measuring: ShardMeasure, progress: Progress) -> dict[Shard, MeasuredShard]:
    """The sizes of local shards: those kept in the cache folder, and those of the others, which are walked and kept.

    Shards with damage or without records are left out, and so is every shard of a small data set. Raises `InputError`
    for a gzipped shard that unpacks to more than is allowed.
    """
    folders: dict[str, list[Shard]] = {}
    for shard in shards:
        if not shard.remote:
            folders.setdefault(os.path.dirname(shard.path), []).append(shard)
    sizes: dict[Shard, MeasuredShard] = {}
    for folder, inside in folders.items():
        if is_large(inside):
            sizes |= _sizes_in(os.path.realpath(folder), inside, measuring, progress)
    return sizes


def _sizes_in(
    folder: str, shards: list[Shard], measuring: ShardMeasure, progress: Progress
) -> dict[Shard, MeasuredShard]:
    found = _known(use(folder), shards, measuring)
    if not is_large(_others(shards, found)):
        return found
    with one_walker(folder, progress):
        # Another process may have walked them meanwhile.
        kept = use(folder)
        found = _known(kept, shards, measuring)
        new: list[Entry] = []
        last = time.monotonic()
        for shard, measured, entry in _walked(_others(shards, found), measuring, progress):
            found[shard] = measured
            if entry is not None:
                new.append(entry)
            if time.monotonic() - last > KEEP_SECONDS:
                keep(folder, new, kept)
                last = time.monotonic()
        if new:
            keep(folder, new, kept)
    return found


def _others(shards: list[Shard], found: dict[Shard, MeasuredShard]) -> list[Shard]:
    return [shard for shard in shards if shard not in found]


def _known(kept: FramingIndex, shards: list[Shard], measuring: ShardMeasure) -> dict[Shard, MeasuredShard]:
    """The kept sizes of `shards`, or none if a shard that is compared with the disk has changed."""
    rows: dict[Shard, Row] = {}
    for shard in shards:
        with suppress(OSError):
            row = kept.row(shard.name, Stamp.of(os.stat(shard.path)))
            if row is not None:
                rows[shard] = row
    plain = [shard for shard, row in rows.items() if not row.unpacked]
    if not all(_as_known(kept, shard) for shard in plain[:: max(1, len(plain) // CHECKED)]):
        # Their file system does not tell when files change.
        forget_all(kept.folder)
        return {}
    found = {}
    for shard, row in rows.items():
        if row.unpacked:
            check_unpacked(shard.path, row.unpacked, row.size, shard.max_unpacked)
        if (measured := _of_row(row, measuring)) is not None:
            found[shard] = measured
    return found


def _of_row(row: Row, measuring: ShardMeasure) -> MeasuredShard | None:
    """The measures in a shard's row, or None if its videos were counted for another layout or limit."""
    size = ShardSize(row.records, row.data_bytes, row.digest, row.longest)
    if not measuring.may_cut(size.longest):
        return MeasuredShard(size, Cut(measuring.max_frames))
    if (row.layout, row.limit) != (measuring.key, measuring.max_frames):
        return None
    return MeasuredShard(size, Cut(row.limit, row.videos, row.longest_video, row.frames))


def _row(stamp: Stamp, measured: MeasuredShard, unpacked: int, measuring: ShardMeasure) -> Row:
    """The row of a shard; the CRC of its lengths is missing."""
    cut = measured.cut
    return Row(
        *stamp, *measured.size, unpacked, measuring.key, cut.limit, cut.videos, cut.longest, cut.frames, lengths_crc=0
    )


def _as_known(kept: FramingIndex, shard: Shard) -> bool:
    lengths = kept.lengths(shard.name)
    if lengths is None:
        return False
    try:
        with open(shard.path, "rb") as file:
            return ends_match(file.fileno(), index_of_lengths(lengths), os.fstat(file.fileno()).st_size)
    except OSError:
        return False


def _walked(
    shards: list[Shard], measuring: ShardMeasure, progress: Progress
) -> Iterator[tuple[Shard, MeasuredShard, Entry | None]]:
    """Each shard that is whole, its size, and the entry to keep."""
    began, shown = time.monotonic(), False
    with ThreadPoolExecutor(THREADS) as threads:
        waiting = {threads.submit(_walk, shard, measuring): shard for shard in shards}
        try:
            for done, each in enumerate(as_completed(waiting), 1):
                if shown:
                    progress.advance(1)
                elif time.monotonic() - began > QUIET_SECONDS:
                    progress.begin("looking for the records", len(shards), "files", done)
                    shown = True
                result = each.result()
                if result is not None:
                    yield waiting.pop(each), *result
        finally:
            threads.shutdown(cancel_futures=True)
            if shown:
                progress.end()


def _walk(shard: Shard, measuring: ShardMeasure) -> tuple[MeasuredShard, Entry | None] | None:
    """A shard's size and the entry to keep; None if the shard is not whole."""
    walked_at = time.time_ns()
    try:
        before = Stamp.of(os.stat(shard.path))
        opened = open_shard(shard, use_known=True)
        if opened.damage or not len(opened):
            return None
        measured = measuring(opened)
        after = Stamp.of(os.stat(shard.path))
    except (TopgbError, OSError):
        # Opening it again tells why, in the order of the shards.
        return None
    if before != after or not settled(before, walked_at) or measured.size.longest > MOST_LENGTH:
        return measured, None
    unpacked = len(opened.buffer) if opened.unpacked else 0
    return measured, Entry.made(shard.name, _row(before, measured, unpacked, measuring), opened.index.lengths)
