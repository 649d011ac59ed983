"""Sound checksums and lengths around fuzzed bytes, so that what lies behind them is reached."""

import json
import struct

from topgb.checksums import masked_crc

_FOOTER_BYTES, _TRAILER_BYTES = 48, 5
_MOST_DATA = 1 << 16


def tfrecord_crcs(data: bytes) -> bytes:
    """`data` as a TFRecord file whose CRCs are right, as far as its lengths lead."""
    fixed, position = bytearray(data), 0
    while position + 12 <= len(fixed):
        (length,) = struct.unpack_from("<Q", fixed, position)
        _put_crc(fixed, position + 8, fixed[position : position + 8])
        start, position = position + 12, position + 12 + length
        if position + 4 > len(fixed):
            break
        _put_crc(fixed, position, fixed[start:position])
        position += 4
    return bytes(fixed)


def table_crcs(data: bytes) -> bytes:
    """`data` as a LevelDB table with its magic number, whose blocks' CRCs are right wherever its handles lead."""
    fixed = bytearray(data)
    if len(fixed) < _FOOTER_BYTES:
        return data
    fixed[-8:] = struct.pack("<Q", 0xDB4775248B80FB57)
    numbers = _varints(bytes(fixed[-_FOOTER_BYTES:-8]))
    if len(numbers) < 4 or not _repair_block(fixed, *numbers[2:4]):
        return bytes(fixed)
    offset, size = numbers[2:4]
    # Wherever a handle could begin in the index block; a wrong guess repairs what nobody looks at, or damages.
    position = offset
    while position + 3 < offset + size - 4:
        shared, own, length = fixed[position : position + 3]
        handle = _varints(bytes(fixed[position + 3 + own : position + 3 + own + length]))
        if max(shared, own, length) > 127 or len(handle) < 2 or not _repair_block(fixed, *handle[:2]):
            break
        position += 3 + own + length
    return bytes(fixed)


def safetensors(header: bytes, data: bytes) -> bytes:
    """A safetensors file with this header, and as many bytes of data as the header wants, if that is not much."""
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        wanted = max(ends, default=0)
        data = data.ljust(wanted, b"\1")[:wanted] if 0 <= wanted <= _MOST_DATA else data
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        pass
    return struct.pack("<Q", len(header)) + header + data


def _repair_block(fixed: bytearray, offset: int, size: int) -> bool:
    """Correct the CRC of a block, if it lies before the footer."""
    stop = offset + size
    if stop + _TRAILER_BYTES > len(fixed) - _FOOTER_BYTES:
        return False
    _put_crc(fixed, stop + 1, fixed[offset : stop + 1])
    return True


def _put_crc(fixed: bytearray, position: int, content: bytes | bytearray) -> None:
    struct.pack_into("<I", fixed, position, masked_crc(bytes(content)))


def _varints(data: bytes) -> list[int]:
    numbers, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value, shift = 0, 0
    return numbers
