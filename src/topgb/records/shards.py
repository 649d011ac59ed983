"""Find a data set's shards, local or remote, and open a shard as a mapped buffer of records."""

import glob
import mmap
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from topgb.errors import InputError, NotRecordsError, TopgbError
from topgb.files import open_input, refuse_unfinished
from topgb.records.framing import (
    HEADER_BYTES,
    Damage,
    Place,
    RecordIndex,
    data_crc_matches,
    index_file,
    index_records,
    starts_with_record,
)
from topgb.unpacked_size import max_unpacked


@dataclass(frozen=True)
class Shard:
    """A file of records: its local path or URL, and whether it is reached through fsspec."""

    path: str
    remote: bool = False
    # The bound of the process that found the shard (`topgb.unpacked_size`) goes to workers with it.
    max_unpacked: int | None = field(default_factory=max_unpacked, compare=False)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class OpenShard:
    """A shard's bytes and the places of its records.

    known     whether the places come from the cache folder, not from a walk
    unpacked  whether the bytes are those of a gzipped file, unpacked

    The buffer is a read-only memory map. The map and its file descriptor are freed with the last reference to the
    buffer.
    """

    shard: Shard
    buffer: memoryview
    index: RecordIndex
    known: bool = False
    unpacked: bool = False

    def __len__(self) -> int:
        return len(self.index)

    @property
    def damage(self) -> Damage | None:
        """The damage that makes the rest of the file unreadable, or None."""
        return self.index.damage

    def data(self, record: int) -> memoryview:
        """The data of record number `record`, neither copied nor checked."""
        start = int(self.index.offsets[record])
        return self.buffer[start : start + int(self.index.lengths[record])]

    def checked(self, record: int) -> tuple[memoryview, Place]:
        """The data of record number `record`, not copied, and its place.

        Raises `DamagedRecordError` if it does not match its CRC, `InputError` if the records are not where they were
        known to be.
        """
        start = int(self.index.offsets[record])
        end = start + int(self.index.lengths[record])
        data = self.buffer[start:end]
        if not data_crc_matches(data, self.buffer, end):
            if self.known:
                self._refuse_moved()
            raise self.place(record).damaged("its data does not match its CRC")
        return data, Place(self.shard.path, record, start - HEADER_BYTES)

    def _refuse_moved(self) -> None:
        walked = index_records(self.buffer)
        if walked.damage or not np.array_equal(walked.lengths, self.index.lengths):
            from topgb.records.known_framing import forget

            forget(self.shard.path)
            raise InputError(
                f"{self.shard.path} holds other records than when it was opened first, though its size and times are "
                "the same; leave the files alone while they are in use, and start again"
            )

    def place(self, record: int) -> Place:
        """The place of record number `record` (from 0) for messages; also of the one after the last good record."""
        if record < len(self.index):
            return Place(self.shard.path, record, int(self.index.offsets[record]) - HEADER_BYTES)
        return Place(self.shard.path, record, self.damage.offset if self.damage else len(self.buffer))


def find_shards(pattern: str | Sequence[str]) -> list[Shard]:
    """The files that `pattern` names, in name order, each once, even if several paths lead to it.

    `pattern` is a local path, a glob (`**` for any depth), an fsspec URL (with a glob if its file system can list
    files), or several of these: a string with commas between them, or a sequence, whose items may contain commas. A
    folder stands for its `*.tfrecord` and `*.tfrecord.gz`. Signs of a glob in the name of a folder that exists are
    taken literally. Raises `InputError` if an item matches nothing or a set of files is only partly in place, and for a
    file beside its gzipped form.
    """
    if isinstance(pattern, str):
        whole = os.path.exists(pattern) or ("://" not in pattern and glob.glob(_literal_folders(pattern)))
        pieces = [pattern] if whole else [p.strip() for p in pattern.split(",") if p.strip()]
    else:
        pieces = [os.fspath(piece) for piece in pattern]
    if not pieces:
        raise InputError("no records were named; give a file, a glob or a URL")
    found: dict[str, Shard] = {}
    for piece in pieces:
        for shard in _remote_shards(piece) if "://" in piece else _local_shards(piece):
            found.setdefault(shard.path if shard.remote else os.path.realpath(shard.path), shard)
    paths = {shard.path for shard in found.values()}
    if twice := {path + ".gz" for path in paths} & paths:
        raise InputError(f"{min(twice)} is beside the same file unpacked, and would count twice; name one of them")
    for folder in sorted({os.path.dirname(shard.path) for shard in found.values() if not shard.remote}):
        refuse_unfinished(folder)
    return sorted(found.values(), key=lambda shard: shard.path)


def _remote_shards(url: str) -> list[Shard]:
    from topgb.records.remote_files import local_path, matching

    local = local_path(url)
    return [Shard(name, remote=True) for name in matching(url)] if local is None else _local_shards(local)


def _local_shards(piece: str) -> list[Shard]:
    path = os.path.expanduser(piece)
    matches = [path] if os.path.exists(path) else glob.glob(_literal_folders(path), recursive=True)
    if not (files := [match for match in matches if not os.path.isdir(match)]):
        from topgb.records.folders import records_in

        files = [file for folder in sorted(matches) for file in records_in(folder)]
    if not files:
        from topgb.records.folders import no_match_error

        raise no_match_error(piece)
    return [Shard(file) for file in files]


def _literal_folders(path: str) -> str:
    """The glob `path` with the signs escaped in those of its leading folders that exist under that very name."""
    parts = path.split(os.sep)
    for count in range(len(parts) - 1, 0, -1):
        folder = os.sep.join(parts[:count])
        if folder and os.path.isdir(folder):
            return os.sep.join([glob.escape(folder), *parts[count:]])
    return path


def open_shard(shard: Shard, use_known: bool = False) -> OpenShard:
    """Map a shard into memory and find its records; with `use_known`, take their places from the cache folder.

    A remote or gzip-compressed shard (detected by content, not by name) is first copied to an unlinked temporary file,
    so that memory stays bounded. Raises `InputError` if the file is gone or not readable, `NotRecordsError` if it is
    recognised as something else, `DamagedRecordError` if it is empty, `TopgbError` if the temporary folder is full or
    the network fails.
    """
    cut_short, unpacked = None, False
    if shard.remote:
        file, cut_short, unpacked = _fetch_remote(shard)
    else:
        file = _open_local(shard)
        head = file.read(HEADER_BYTES)
        file.seek(0)
        if _is_gzip(head):
            (file, cut_short), unpacked = _unpack_gzip(file, shard), True
    index, known = None, False
    with file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise Place(shard.path, 0, 0).damaged(cut_short or "the file is empty (0 bytes)")
        if use_known and not shard.remote and not unpacked:
            from topgb.records.known_framing import known_index

            index = known_index(shard.path, file.fileno())
            known = index is not None
        index = index or _walk(file, size, shard)
        buffer = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
    if not len(index):
        _refuse_foreign(buffer, shard, unpacked)
    if cut_short:
        end = index.damage.offset if index.damage else size
        index = RecordIndex(index.offsets, index.lengths, Damage(len(index), end, cut_short))
    return OpenShard(shard, buffer, index, known, unpacked)


def _refuse_foreign(buffer: memoryview, shard: Shard, unpacked: bool) -> None:
    """Raise `NotRecordsError` if a file without a readable record is recognised as something else."""
    from topgb.records.foreign import recognised

    foreign = recognised(buffer, shard.path)
    if foreign is not None:
        begins = "unpacked, it begins" if unpacked else "it begins"
        reason = f"{shard.path} is not a TFRecord file; {begins} like {foreign.like}; {foreign.remedy}"
        raise NotRecordsError(shard.path, 0, 0, reason)


def _walk(file: BinaryIO, size: int, shard: Shard) -> RecordIndex:
    try:
        return index_file(file.fileno(), size)
    except OSError as error:
        raise TopgbError(f"cannot read {shard.path}: {error.strerror}") from error


def _open_local(shard: Shard) -> BinaryIO:
    try:
        return open_input(shard.path)
    except OSError as error:
        raise InputError(f"cannot read {shard.path}: {error.strerror}; check the path and its permissions") from error


def _is_gzip(head: bytes) -> bool:
    # A record's length may begin with gzip's two magic bytes; the CRC of the length shows that it is a record.
    return head[:2] == b"\x1f\x8b" and not starts_with_record(head)


def _fetch_remote(shard: Shard) -> tuple[BinaryIO, str | None, bool]:
    # Imported here, because most shards are local.
    from topgb.records.remote_files import fetch

    copy = fetch(shard.path)
    head = copy.read(HEADER_BYTES)
    copy.seek(0)
    return (*_unpack_gzip(copy, shard), True) if _is_gzip(head) else (copy, None, False)


def _unpack_gzip(file: BinaryIO, shard: Shard) -> tuple[BinaryIO, str | None]:
    from topgb.records.spooling import spool

    with file as compressed:
        return spool(compressed, shard.path, True, os.fstat(compressed.fileno()).st_size, shard.max_unpacked)


class ShardCache:
    """The shards opened last, at most `limit` of them, so that descriptors and temporary files stay few.

    With `use_known` the places of their records are taken from the cache folder where it has them.

    A cache pickles without its shards: a loader's worker opens its own.
    """

    # Training reads from one window of shards at a time (see order.py); 64 shards hold a window at usual shard sizes.
    def __init__(self, limit: int = 64, use_known: bool = False):
        self.limit, self.use_known = limit, use_known
        self._open: OrderedDict[Shard, OpenShard] = OrderedDict()
        # The one asked for last, which the next record's is nearly always: to look it up takes its hash, twice.
        self._last: OpenShard | None = None

    def get(self, shard: Shard) -> OpenShard:
        """The open shard; opens it if the cache does not hold it. Raises as `open_shard` does."""
        last = self._last
        if last is not None and last.shard is shard:
            return last
        held = self._last = self._open.get(shard)
        if held is not None:
            self._open.move_to_end(shard)
            return held
        opened = open_shard(shard, self.use_known)
        self._open[shard] = self._last = opened
        if len(self._open) > self.limit:
            self._open.popitem(last=False)
        return opened

    def __reduce__(self):
        return ShardCache, (self.limit, self.use_known)
