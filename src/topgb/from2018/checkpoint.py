"""Read TensorFlow checkpoints (`PREFIX.index`, `PREFIX.data-00000-of-00001`) without TensorFlow.

The index is a table. It maps a variable's name to a message that says where the values lie, and the empty key to a
header.
"""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from topgb.checksums import masked_crc
from topgb.errors import InputError
from topgb.from2018.sstable import read_table

# The keys are TensorFlow's numbers of data types (its enum DataType).
_DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
}
_OTHER_TYPES = {7: "string", 14: "bfloat16"}
_LITTLE_ENDIAN = 0
_VERSION = 1
# The most axes that NumPy can hold.
_MAX_RANK = 64
# The remedy where the checksums hold, so that no copy of the same file helps.
_NO_TENSORFLOW = "no TensorFlow writes that; use the checkpoint as it was saved"


@dataclass(frozen=True)
class Entry:
    """The index's entry of one variable.

    type_number  TensorFlow's number of the data type
    shape        the whole shape
    partitioned  whether the variable is stored in slices; the fields below then mean nothing
    shard        number of the data file with the values
    offset       byte in that file where the values begin
    size         bytes of the values
    crc          masked CRC32C of these bytes
    """

    type_number: int
    shape: tuple[int, ...]
    partitioned: bool
    shard: int
    offset: int
    size: int
    crc: int

    @property
    def dtype(self) -> np.dtype | None:
        """The variable's dtype, or None if `TF1Checkpoint.read` does not know the type."""
        return _DTYPES.get(self.type_number)


@dataclass(frozen=True)
class TF1Checkpoint:
    """An opened checkpoint: the prefix of its files, the number of its data files, its variables by name."""

    prefix: Path
    shards: int
    entries: dict[str, Entry]

    def names(self) -> list[str]:
        """The variables' names, sorted by their bytes."""
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable. Raises `InputError` if there is none of that name."""
        return self._entry(name).shape

    def read(self, name: str) -> np.ndarray:
        """The values of a variable, in its own dtype and shape, checked against their CRC.

        Raises `InputError` if there is no such variable, if its type cannot be read here (strings, bfloat16), if it is
        partitioned, or if its values are damaged.
        """
        entry = self._entry(name)
        if entry.partitioned:
            raise InputError(
                f"{self.prefix}: the variable {name!r} is partitioned, which topgb does not read; "
                "save it without a partitioner"
            )
        if entry.dtype is None:
            kind = _OTHER_TYPES.get(entry.type_number, f"number {entry.type_number}")
            raise InputError(
                f"{self.prefix}: the variable {name!r} has TensorFlow's data type {kind}, which topgb does not read; "
                "leave it out or save it as float32"
            )
        path = _shard_path(self.prefix, entry.shard, self.shards)
        try:
            stored = np.fromfile(path, np.uint8, count=entry.size, offset=entry.offset)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None
        if len(stored) != entry.size or masked_crc(stored.data) != entry.crc:
            raise InputError(f"{path}: the variable {name!r} does not match its CRC; copy or download the file again")
        # To NumPy, a bool whose byte is neither 0 nor 1 is neither true nor false.
        values = stored != 0 if entry.dtype == np.bool_ else stored.view(entry.dtype)
        return values.reshape(entry.shape)

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise InputError(f"{self.prefix} has no variable {name!r}; it has {', '.join(map(repr, self.entries))}")
        return self.entries[name]


def open_checkpoint(path: str | os.PathLike) -> TF1Checkpoint:
    """Open the checkpoint whose prefix, `.index` file or folder is `path`; no variable's values are read yet.

    Raises `InputError` if there is no checkpoint or a folder holds several, if the index is damaged, or if a data file
    is missing or shorter than the index says.
    """
    index = _find_index(Path(path))
    table = read_table(index)
    if b"" not in table:
        raise InputError(f"{index} has no header, so it is not the index of a checkpoint; name another")
    header = _parse_message(_Header, table.pop(b""), index, "its header")
    if header.endianness != _LITTLE_ENDIAN:
        raise InputError(
            f"{index} was written on a big-endian machine, which topgb does not read; save it on another one"
        )
    if header.version.min_consumer > _VERSION:
        raise InputError(
            f"{index} needs a reader of version {header.version.min_consumer}, and topgb reads version {_VERSION}; "
            "save it with an earlier TensorFlow"
        )
    if header.num_shards < 1:
        raise InputError(f"{index} says that it has {header.num_shards} data files; {_NO_TENSORFLOW}")
    entries = {}
    for key, value in table.items():
        # Skip the slices of a partitioned variable, which also has an entry under its name.
        if not key.startswith(b"\0"):
            name = _decode_name(key, index)
            entries[name] = _checked_entry(value, header.num_shards, index, name)
    checkpoint = TF1Checkpoint(index.with_suffix(""), header.num_shards, entries)
    _check_shards(checkpoint)
    return checkpoint


def _find_index(path: Path) -> Path:
    try:
        for index in (path, Path(f"{path}.index")):
            if index.suffix == ".index" and index.is_file():
                return index
        if not path.is_dir():
            raise InputError(f"there is no checkpoint {path} (no file {path}.index); name its prefix or its folder")
        indexes = sorted(file for file in path.iterdir() if file.suffix == ".index" and file.is_file())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if not indexes:
        raise InputError(f"there is no checkpoint (no file *.index) in the folder {path}; name another folder")
    if len(indexes) > 1:
        found = ", ".join(index.stem for index in indexes)
        raise InputError(f"there are several checkpoints in the folder {path}; name one of {found}, as {path}/NAME")
    return indexes[0]


def _decode_name(key: bytes, index: Path) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise InputError(f"{index}: the variable name {key!r} is not UTF-8; {_NO_TENSORFLOW}") from None


def _checked_entry(value: bytes, shards: int, index: Path, name: str) -> Entry:
    """Parse an entry, and check that its numbers agree with each other."""
    stored = _parse_message(_Entry, value, index, f"the entry of {name!r}")
    if len(stored.shape.dim) > _MAX_RANK or any(dim.size < 0 for dim in stored.shape.dim) or stored.shape.unknown_rank:
        raise InputError(f"{index}: the shape of the variable {name!r} is not possible; {_NO_TENSORFLOW}")
    shape = tuple(dim.size for dim in stored.shape.dim)
    entry = Entry(stored.dtype, shape, bool(stored.slices), stored.shard_id, stored.offset, stored.size, stored.crc32c)
    if entry.partitioned:
        return entry
    if not 0 <= entry.shard < shards or entry.offset < 0 or entry.size < 0:
        raise InputError(f"{index}: the place of the variable {name!r} is not possible; {_NO_TENSORFLOW}")
    if entry.dtype is not None:
        itemsize = entry.dtype.itemsize
        # NumPy refuses an empty array whose other dimensions are too large.
        if math.prod(max(size, 1) for size in shape) * itemsize > sys.maxsize:
            raise InputError(f"{index}: the shape of the variable {name!r} is not possible; {_NO_TENSORFLOW}")
        if math.prod(shape) * itemsize != entry.size:
            raise InputError(
                f"{index}: the variable {name!r} is {entry.dtype} {list(shape)}, but has {entry.size} bytes; "
                f"{_NO_TENSORFLOW}"
            )
    return entry


def _check_shards(checkpoint: TF1Checkpoint) -> None:
    """Raise `InputError` if a data file is missing, or ends before a variable in it does."""
    sizes: dict[int, int] = {}
    for name, entry in checkpoint.entries.items():
        if entry.partitioned:
            continue
        path = _shard_path(checkpoint.prefix, entry.shard, checkpoint.shards)
        if entry.shard not in sizes:
            sizes[entry.shard] = _file_size(path)
        if entry.offset + entry.size > sizes[entry.shard]:
            raise InputError(
                f"{path} is cut off: it has {sizes[entry.shard]} bytes, but the variable {name!r} ends at byte "
                f"{entry.offset + entry.size}; copy or download it again"
            )


def _file_size(path: Path) -> int:
    try:
        if path.is_file():
            return path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    raise InputError(f"the checkpoint's data file {path} is missing; put it beside the index")


def _shard_path(prefix: Path, shard: int, shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}")


def _parse_message(kind: Any, value: bytes, index: Path, what: str) -> Any:
    try:
        return kind.FromString(value)
    except message.DecodeError:
        raise InputError(f"{index}: {what} is damaged; {_NO_TENSORFLOW}") from None


def _declare() -> descriptor_pb2.FileDescriptorProto:
    """The messages of TensorFlow's tensor_bundle.proto, without the fields that are not read here."""
    field = descriptor_pb2.FieldDescriptorProto
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    messages: dict[str, list[tuple[str, int, Any, Any]]] = {
        "Version": [("min_consumer", 2, one, field.TYPE_INT32)],
        "Header": [
            ("num_shards", 1, one, field.TYPE_INT32),
            ("endianness", 2, one, field.TYPE_INT32),
            ("version", 3, one, "Version"),
        ],
        "Dim": [("size", 1, one, field.TYPE_INT64)],
        "Shape": [("dim", 2, many, "Dim"), ("unknown_rank", 3, one, field.TYPE_BOOL)],
        "Entry": [
            ("dtype", 1, one, field.TYPE_INT32),
            ("shape", 2, one, "Shape"),
            ("shard_id", 3, one, field.TYPE_INT32),
            ("offset", 4, one, field.TYPE_INT64),
            ("size", 5, one, field.TYPE_INT64),
            ("crc32c", 6, one, field.TYPE_FIXED32),
            ("slices", 7, many, field.TYPE_BYTES),
        ],
    }
    file = descriptor_pb2.FileDescriptorProto(name="topgb/tensor_bundle.proto", package="topgb", syntax="proto3")
    for message_name, fields in messages.items():
        declared = file.message_type.add(name=message_name)
        for name, number, label, kind in fields:
            added = declared.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = field.TYPE_MESSAGE, f".topgb.{kind}"
            else:
                added.type = kind
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_declare())
_Header: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("topgb.Header"))
_Entry: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("topgb.Entry"))
