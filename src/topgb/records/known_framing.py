"""The places of records, kept from an earlier walk over their shards, and when they may be trusted.

A shard's entry counts as long as the shard has the size, the times of modification and of change, and the inode that
it had when it was walked. Within the grain of a file system's clock a file can change and keep all of these, so shards
that were modified in the last seconds are not kept. When a known shard is opened, its first and last headers are
compared. When a record is read, its data's CRC is checked as ever, and where that fails, the shard is walked again.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from topgb.errors import TopgbError
from topgb.files import is_at, lock
from topgb.progress import Progress
from topgb.records.framing import FOOTER_BYTES, HEADER_BYTES, RecordIndex, header_matches, index_of_lengths
from topgb.records.framing_index import Entry, FramingIndex, Stamp, index_path, read_index, write_index

# Times have a grain of 2 s in the worst case (FAT), and a server's clock may be some seconds behind.
SETTLED_NS = 10_000_000_000
# All index files together have at most this many bytes; six million records take 24 MB.
MOST_BYTES = 512 << 20
# Seconds that a process waits for another one that walks the same folder, before it walks by itself.
PATIENCE = 120.0


def known_index(path: str, descriptor: int) -> RecordIndex | None:
    """The index of the open shard `path`, or None if it must be walked."""
    folder, name = place_of(path)
    stamp = Stamp.of(os.fstat(descriptor))
    kept = _held(folder)
    row = kept.row(name, stamp)
    if row is None or row.unpacked or (lengths := kept.lengths(name)) is None:
        return None
    index = index_of_lengths(lengths)
    if ends_match(descriptor, index, stamp.size):
        return index
    forget(path)
    return None


def ends_match(descriptor: int, index: RecordIndex, size: int) -> bool:
    """Whether a file of `size` bytes has the first and the last record of `index`, which ends where the file does."""
    if not len(index) or index.offsets[-1] + index.lengths[-1] + FOOTER_BYTES != size:
        return False
    try:
        return all(
            header_matches(
                os.pread(descriptor, HEADER_BYTES, int(index.offsets[record]) - HEADER_BYTES),
                int(index.lengths[record]),
            )
            for record in (0, -1)
        )
    except OSError:
        return False


def settled(stamp: Stamp, walked_ns: int) -> bool:
    """Whether a shard that was walked at `walked_ns` could not change any more and keep its stamp."""
    return max(stamp.modified, stamp.changed) < walked_ns - SETTLED_NS


def place_of(path: str) -> tuple[str, str]:
    """A shard's folder without symbolic links, and its name there."""
    folder, name = os.path.split(path)
    return os.path.realpath(folder), name


def forget(path: str) -> None:
    """Drop what is kept of the shard `path`."""
    folder, name = place_of(path)
    keep(folder, [], read_index(folder).without(name))


def forget_all(folder: str) -> None:
    """Drop what is kept of the shards of `folder`."""
    with suppress(OSError):
        index_path(folder).unlink(missing_ok=True)
    _held.cache_clear()


def keep(folder: str, new: list[Entry], old: FramingIndex) -> None:
    """Keep `new` entries of the shards of `folder`, and those `old` ones whose files are as they were.

    Where nothing can be written, nothing is kept.
    """
    fresh = {entry.name for entry in new}
    still = [
        entry
        for name, row in old.rows.items()
        if name not in fresh and _stamp(os.path.join(folder, name)) == row.stamp and (entry := old.entry(name))
    ]
    with suppress(TopgbError, OSError):
        write_index(folder, [*still, *new])
        _drop_oldest(index_path(folder).parent)
    _held.cache_clear()


def use(folder: str) -> FramingIndex:
    """The index of the shards of `folder` as it is on the disk now; it counts as used last."""
    _held.cache_clear()
    found = _held(folder)
    if found.rows:
        with suppress(OSError):
            os.utime(found.path)
    return found


@contextmanager
def one_walker(folder: str, progress: Progress) -> Iterator[None]:
    """A block that one process at a time enters for a folder, so that the others find what the first one walked.

    Nobody waits longer than `PATIENCE` seconds, nor where locks do not work; `progress` shows the wait.
    """
    path = index_path(folder).with_suffix(".lock")
    descriptor, began, told = None, time.monotonic(), False
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        while (descriptor := _locked(path)) is None and (waited := time.monotonic() - began) < PATIENCE:
            if waited > 1 and not told:
                told = True
                progress.say(f"waiting for another process that looks for the records in {folder}")
            time.sleep(0.05)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """The descriptor of the locked file `path`; None if another process has it. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    # Whoever had it has removed it.
    if lock(descriptor) is False or not is_at(path, descriptor):
        os.close(descriptor)
        return None
    return descriptor


@lru_cache(maxsize=16)
def _held(folder: str) -> FramingIndex:
    return read_index(folder)


def _stamp(path: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(path))
    except OSError:
        return None


def _drop_oldest(folder: Path) -> None:
    """Remove index files in `folder`, oldest use first, until they have at most `MOST_BYTES` together."""
    with os.scandir(folder) as entries:
        found = [(entry.stat(), entry.path) for entry in entries if entry.name.endswith(".index")]
    room = MOST_BYTES
    for status, path in sorted(found, key=lambda each: each[0].st_mtime_ns, reverse=True):
        room -= status.st_size
        if room < 0:
            os.unlink(path)
