"""Where the records of shards begin, kept in the cache folder: one file for each folder of shards.

A file holds, in this order:

    header   8 bytes of magic, then u64: number of shards, bytes of the names, CRC-32C of names and table
    names    the path of the folder and the name of each shard, each ended by a zero byte
    table    int64 [shards, columns of `Row`], little-endian
    lengths  uint32: the lengths of the first shard's records, of the second's, …

Records follow each other without a gap, so their lengths say where they begin. A file of another size, or whose CRC
does not match, counts as none. A row is believed as long as the shard has the same size, times and inode.
"""

import hashlib
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from crc32c import crc32c

from topgb.files import atomic_write, cache_folder

_HEADER = struct.Struct("<8sQQQ")
_MAGIC = b"topgbfr1"
_LENGTH_BYTES = 4
MOST_LENGTH = (1 << 32) - 1


class Stamp(NamedTuple):
    """Size, times in nanoseconds, and inode of a file: at least one of them changes when the file changes."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Stamp":
        """The stamp of the file that was found."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & (1 << 63) - 1)


class Row(NamedTuple):
    """A shard in the table, in integers.

    size … inode        its `Stamp`
    records … longest   its `ShardSize`
    unpacked            bytes it unpacks to if it is gzipped, else 0
    limit … frames      the videos longer than `limit` frames (see `Cut`), as counted for the layout with key `layout`
    lengths_crc         CRC-32C of its records' lengths, as stored
    """

    size: int
    modified: int
    changed: int
    inode: int
    records: int
    data_bytes: int
    digest: int
    longest: int
    unpacked: int
    layout: int
    limit: int
    videos: int
    longest_video: int
    frames: int
    lengths_crc: int

    @property
    def stamp(self) -> Stamp:
        """The stamp that the shard had when it was walked."""
        return Stamp(self.size, self.modified, self.changed, self.inode)


@dataclass(frozen=True)
class Entry:
    """A shard's name, row, and the lengths of its records: uint32 [N]."""

    name: str
    row: Row
    lengths: np.ndarray

    @classmethod
    def made(cls, name: str, row: Row, lengths: np.ndarray) -> "Entry":
        """The entry with the CRC of `lengths`, of which none is over `MOST_LENGTH`."""
        stored = lengths.astype("<u4")
        return cls(name, row._replace(lengths_crc=crc32c(stored.tobytes())), stored)


@dataclass(frozen=True)
class FramingIndex:
    """An index file's table; the lengths are read when they are asked for.

    rows    the row of each shard by name
    places  the byte offset of each shard's lengths in the file, by name
    """

    path: Path
    folder: str
    rows: dict[str, Row]
    places: dict[str, int]

    def row(self, name: str, stamp: Stamp) -> Row | None:
        """The row of the shard `name`, or None if it has another stamp or is not there."""
        row = self.rows.get(name)
        return row if row is not None and row.stamp == stamp else None

    def lengths(self, name: str) -> np.ndarray | None:
        """The lengths of the shard's records, uint32 [N]; None if the file is gone, damaged or another one by now."""
        row = self.rows[name]
        try:
            with open(self.path, "rb") as file:
                raw = os.pread(file.fileno(), row.records * _LENGTH_BYTES, self.places[name])
        except OSError:
            return None
        if len(raw) != row.records * _LENGTH_BYTES or crc32c(raw) != row.lengths_crc:
            return None
        return np.frombuffer(raw, "<u4")

    def entry(self, name: str) -> Entry | None:
        """The whole entry of a shard, or None as `lengths` is."""
        lengths = self.lengths(name)
        return None if lengths is None else Entry(name, self.rows[name], lengths)

    def without(self, name: str) -> "FramingIndex":
        """The index with one shard left out."""
        return replace(self, rows={other: row for other, row in self.rows.items() if other != name})


def index_path(folder: str) -> Path:
    """The file for the shards of `folder`, a path without symbolic links."""
    return cache_folder() / "framing" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.index"


def read_index(folder: str) -> FramingIndex:
    """The index that is kept for the shards of `folder`; empty where the file is absent, damaged or not readable."""
    path = index_path(folder)
    try:
        with open(path, "rb") as file:
            found = _parsed(path, folder, file.fileno())
    except (OSError, ValueError):
        found = None
    return found or FramingIndex(path, folder, {}, {})


def _parsed(path: Path, folder: str, descriptor: int) -> FramingIndex | None:
    size = os.fstat(descriptor).st_size
    header = os.pread(descriptor, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return None
    magic, count, names_bytes, crc = _HEADER.unpack(header)
    table_bytes = count * len(Row._fields) * 8
    if magic != _MAGIC or _HEADER.size + names_bytes + table_bytes > size:
        return None
    raw = os.pread(descriptor, names_bytes + table_bytes, _HEADER.size)
    if crc32c(raw) != crc:
        return None
    where, *names = raw[:names_bytes].split(b"\0")[:-1]
    table = np.frombuffer(raw, "<i8", offset=names_bytes).reshape(count, -1)
    lengths_bytes = table[:, Row._fields.index("records")] * _LENGTH_BYTES
    begin = _HEADER.size + len(raw)
    if os.fsdecode(where) != folder or len(names) != count or begin + lengths_bytes.sum() != size:
        return None
    shards = [os.fsdecode(name) for name in names]
    places = begin + np.cumsum(lengths_bytes) - lengths_bytes
    rows = (Row(*values) for values in table.tolist())
    return FramingIndex(
        path, folder, dict(zip(shards, rows, strict=True)), dict(zip(shards, places.tolist(), strict=True))
    )


def write_index(folder: str, entries: list[Entry]) -> None:
    """Replace what is kept of the shards of `folder`. Raises `TopgbError` where that cannot be written."""
    names = b"".join(os.fsencode(name) + b"\0" for name in (folder, *(entry.name for entry in entries)))
    raw = names + np.array([entry.row for entry in entries], "<i8").tobytes()
    with atomic_write(index_path(folder)) as file:
        file.write(_HEADER.pack(_MAGIC, len(entries), len(names), crc32c(raw)))
        file.write(raw)
        for entry in entries:
            file.write(entry.lengths.tobytes())
