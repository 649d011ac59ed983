"""TFRecord framing: u64 length, u32 masked CRC of the length, the data, u32 masked CRC of the data; little-endian."""

import os
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from crc32c import crc32c

from topgb.checksums import MASK_DELTA, masked_crc
from topgb.errors import DamagedRecordError, RecordError, UnfitRecordError

HEADER_BYTES = 12
FOOTER_BYTES = 4
RECORD_BYTES = HEADER_BYTES + FOOTER_BYTES
_HEADER = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
# An id and a feature of one value take more. A file may hold some shorter records, but not millions of them.
LEAST_BYTES = 24
MOST_HOLLOW = 10_000
# Records longer than what the system reads ahead are skipped from header to header; shorter ones are read through.
READ_AHEAD = 1 << 17


class Place(NamedTuple):
    """The place of a record: the shard's path, the record's number in it (from 0), the byte offset of its header."""

    path: str
    record: int
    offset: int

    def damaged(self, reason: str) -> DamagedRecordError:
        """The error for this record, which cannot be read for the given reason."""
        return DamagedRecordError(self.path, self.record, self.offset, reason)

    def unfit(self, reason: str) -> UnfitRecordError:
        """The error for this record, which is whole but which no model can use; the reason ends with the remedy."""
        return UnfitRecordError(self.path, self.record, self.offset, reason)

    def unusable(self, reason: str) -> RecordError:
        """The error for this record, which is not skipped as its kind is wrong everywhere; the remedy included."""
        return RecordError(self.path, self.record, self.offset, reason)

    def __str__(self) -> str:
        return f"{self.path}: record {self.record} at byte {self.offset}"


@dataclass(frozen=True)
class Damage:
    """The reason why a file's records end early, and number and byte offset of the first unreachable record.

    A file whose bytes are not at fault is `unfit`: the reason then ends with the remedy.
    """

    record: int
    offset: int
    reason: str
    unfit: bool = False

    def error(self, path: str) -> DamagedRecordError:
        """The error for what cannot be reached in the file `path`."""
        place = Place(path, self.record, self.offset)
        if self.unfit:
            return place.unfit(self.reason)
        return place.damaged(f"{self.reason}, and what follows it in the file cannot be reached")


@dataclass(frozen=True)
class RecordIndex:
    """The places of the records in a file.

    offsets  int64 [N], byte offset of each record's data
    lengths  int64 [N], bytes of each record's data
    damage   the reason why the index ends before the file does, or None
    """

    offsets: np.ndarray
    lengths: np.ndarray
    damage: Damage | None

    def __len__(self) -> int:
        return len(self.offsets)


def starts_with_record(head: bytes | memoryview) -> bool:
    """Whether the first 12 bytes of a file are the header of a record: a length and its CRC."""
    return len(head) >= HEADER_BYTES and masked_crc(head[:8]) == _CRC.unpack_from(head, 8)[0]


def index_records(buffer: memoryview) -> RecordIndex:
    """Find every record in a file's bytes; each length is checked against its CRC and against the end of the file.

    Only headers are read, and no length field, however large, causes an allocation. The index ends at the first header
    that cannot be trusted; the records before it can be read.
    """
    return _index(lambda position: buffer[position : position + HEADER_BYTES], len(buffer))


def index_file(descriptor: int, size: int) -> RecordIndex:
    """`index_records` of the first `size` bytes of an open file, without mapping it. Raises `OSError`.

    Other threads run while it waits for the disk.
    """
    pread = os.pread
    head = pread(descriptor, HEADER_BYTES, 0)
    skips = len(head) == HEADER_BYTES and _HEADER.unpack(head)[0] > READ_AHEAD
    if skips and hasattr(os, "posix_fadvise"):
        # The system's read-ahead behind each header would fetch the whole file.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    index = _index(lambda position: pread(descriptor, HEADER_BYTES, position), size)
    if skips and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
    return index


def _index(header_at: Callable[[int], bytes | memoryview], end: int) -> RecordIndex:
    # As numbers of 8 bytes, because a file may be of empty records alone.
    offsets, lengths, damage, hollow = array("q"), array("q"), None, 0
    position = 0
    unpack, crc_of = _HEADER.unpack, crc32c
    while position < end:
        header = header_at(position)
        if len(header) < HEADER_BYTES or position + HEADER_BYTES > end:
            damage = f"the file ends {end - position} bytes into the record's header"
            break
        length, stored = unpack(header)
        # masked_crc is written out here, because this loop runs over all records of a new data set.
        crc = crc_of(header[:8])
        if ((((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF) != stored:
            damage = "its length field does not match the length's CRC"
            break
        if length < LEAST_BYTES:
            hollow += 1
            if hollow > MOST_HOLLOW:
                damage = f"{MOST_HOLLOW:,} records before it are too short to hold a video; name files of videos"
                break
        start = position + HEADER_BYTES
        position = start + length + FOOTER_BYTES
        if position > end:
            damage = f"the file is cut off: the record needs {length} bytes and a CRC, but {end - start} are left"
            break
        offsets.append(start)
        lengths.append(length)
    if damage is None:
        return RecordIndex(np.array(offsets, np.int64), np.array(lengths, np.int64), None)
    broken_at = offsets[-1] + lengths[-1] + FOOTER_BYTES if offsets else 0
    return RecordIndex(
        np.array(offsets, np.int64),
        np.array(lengths, np.int64),
        Damage(len(offsets), broken_at, damage, hollow > MOST_HOLLOW),
    )


def index_of_lengths(lengths: np.ndarray) -> RecordIndex:
    """The index of a whole file of records of the given `lengths` [N]."""
    lengths = lengths.astype(np.int64)
    return RecordIndex(np.cumsum(lengths + RECORD_BYTES) - lengths - FOOTER_BYTES, lengths, None)


def header_matches(header: bytes, length: int) -> bool:
    """Whether the 12 bytes `header` are the header of a record with `length` bytes of data."""
    return starts_with_record(header) and _LENGTH.unpack_from(header)[0] == length


def data_crc_matches(data: memoryview, buffer: memoryview, end: int) -> bool:
    """Whether an indexed record's `data` matches the CRC behind it, at byte `end` of the file's bytes `buffer`."""
    return masked_crc(data) == _CRC.unpack_from(buffer, end)[0]


class ShardSize(NamedTuple):
    """A shard's reachable records: their number, the bytes of their data, their digest, the bytes of the longest."""

    records: int = 0
    size: int = 0
    digest: int = 0
    longest: int = 0


def measure(buffer: memoryview, index: RecordIndex) -> ShardSize:
    """The size of a file's records; the digest is almost surely different if any byte of data differs."""
    lengths, ends = index.lengths, index.offsets + index.lengths
    stored = np.frombuffer(buffer, np.uint8)[ends[:, None] + np.arange(FOOTER_BYTES)]
    digest = crc32c(stored.tobytes(), crc32c(lengths.tobytes()))
    return ShardSize(len(index), int(lengths.sum()), digest, int(lengths.max(initial=0)))


def frame_record(payload: bytes) -> bytes:
    """The bytes of a record in a file: header, `payload`, CRC of the payload."""
    return b"".join(_framed(payload))


def _framed(payload: bytes) -> tuple[bytes, bytes, bytes]:
    length = _LENGTH.pack(len(payload))
    return length + _CRC.pack(masked_crc(length)), payload, _CRC.pack(masked_crc(payload))


def write_record(file: BinaryIO, payload: bytes) -> None:
    """Append one record to a binary file. Raises `OSError` as the file does."""
    # One after the other: a long record is not copied.
    for part in _framed(payload):
        file.write(part)
