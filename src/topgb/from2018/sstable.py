"""Read LevelDB's sorted table, the format of a TensorFlow checkpoint's index: ascending keys, each with a value.

    table     blocks, then a footer of 48 bytes
    footer    4 varints, of which the last two are offset and size of the index block; padding; 8 bytes of magic
    block     its content; u8 type (0 raw, 1 snappy); u32 masked CRC of both
    content   entries; u32 position of each restart point; u32 number of restart points
    entry     3 varints: shared bytes, own bytes, value bytes; the key's own bytes; the value

The shared bytes of a key are the first bytes of the key before it; at a restart point none are shared. The values of
the index block are offset and size of the blocks that hold the table, as varints. All u32 are little-endian.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from topgb.checksums import masked_crc
from topgb.errors import InputError
from topgb.files import open_input

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_U32 = struct.Struct("<I")
_RAW, _SNAPPY = 0, 1

# Shared prefixes let a small file unfold to far more than its size, so every size is bounded. The indexes of real
# checkpoints have some kilobytes, and hundreds of keys.
MAX_FILE_BYTES = 4 << 20
MAX_KEY_BYTES = 512
MAX_KEYS = 20_000
MAX_VALUE_BYTES = 1 << 20


class _DamagedError(Exception):
    """The bytes are no sound table, for the reason in the message."""


def read_table(path: Path) -> dict[bytes, bytes]:
    """Keys and values of a table, in ascending order of keys; every block is checked against its CRC.

    Raises `InputError` if the file cannot be read, is cut off or damaged, is no table, or is compressed.
    """
    try:
        with open_input(path) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB, too many for the index of a checkpoint")
    try:
        return _read_blocks(data, path)
    except _DamagedError as damage:
        raise InputError(
            f"{path} is no checkpoint's index, or is damaged: {damage}; name another, or copy it again"
        ) from None


def _read_blocks(data: bytes, path: Path) -> dict[bytes, bytes]:
    if not data.endswith(_MAGIC):
        raise _DamagedError("it does not end in a table's footer")
    _, _, offset, size = _varints(data[-_FOOTER_BYTES : -len(_MAGIC)], 4)
    table: dict[bytes, bytes] = {}
    last_key, last_stop = None, 0
    for _, handle in _entries(_block_content(data, offset, size, path)):
        offset, size = _varints(handle, 2)
        if offset < last_stop:
            raise _DamagedError("its blocks overlap")
        last_stop = offset + size
        for key, value in _entries(_block_content(data, offset, size, path)):
            if last_key is not None and key <= last_key:
                raise _DamagedError("its keys are not in order")
            if len(table) == MAX_KEYS:
                raise _DamagedError(f"it has more than {MAX_KEYS} keys")
            table[key] = value
            last_key = key
    return table


def _block_content(data: bytes, offset: int, size: int, path: Path) -> bytes:
    """The content of the block at byte `offset`, whose CRC and type are checked."""
    stop = offset + size
    if stop + _TRAILER_BYTES > len(data) - _FOOTER_BYTES:
        raise _DamagedError(f"the block at byte {offset} exceeds the file")
    if masked_crc(data[offset : stop + 1]) != _U32.unpack_from(data, stop + 1)[0]:
        raise _DamagedError(f"the block at byte {offset} does not match its CRC")
    if data[stop] == _SNAPPY:
        raise InputError(
            f"{path} is compressed with snappy, which topgb does not read; save the checkpoint again with "
            "tf.train.Saver, which leaves its index uncompressed"
        )
    if data[stop] != _RAW:
        raise _DamagedError(f"the block at byte {offset} has the unknown type {data[stop]}")
    return data[offset:stop]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block's content, with shared prefixes put back."""
    if len(block) < _U32.size:
        raise _DamagedError("a block is too short")
    (restarts,) = _U32.unpack_from(block, len(block) - _U32.size)
    end = len(block) - _U32.size * (restarts + 1)
    if end < 0:
        raise _DamagedError("a block has more restart points than bytes")
    key, position = b"", 0
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        stop = position + own + length
        if shared > len(key) or stop > end:
            raise _DamagedError("an entry exceeds its block")
        if shared + own > MAX_KEY_BYTES:
            raise _DamagedError(f"a key has {shared + own} bytes")
        if length > MAX_VALUE_BYTES:
            raise _DamagedError(f"an entry has {length} bytes")
        key = key[:shared] + block[position : position + own]
        yield key, block[position + own : stop]
        position = stop


def _varints(data: bytes, count: int) -> list[int]:
    """The first `count` varints in `data`."""
    values, position = [], 0
    for _ in range(count):
        value, position = _varint(data, position)
        values.append(value)
    return values


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint at `position` (seven bits per byte, lowest first), and the position behind it."""
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            raise _DamagedError("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _DamagedError("a number has more than 64 bits")
