"""A writer of TensorFlow checkpoints, which shares no code with the reader."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from topgb.records import framing

TYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "float16": 19,
}


def varint(value: int) -> bytes:
    value %= 1 << 64
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def nested(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def header(shards=1, endianness=0, min_consumer=0) -> bytes:
    return number(1, shards) + number(2, endianness) + nested(3, number(1, 1) + number(2, min_consumer))


def entry(kind=1, shape=(), shard=0, offset=0, size=4, crc=0, slices=0) -> bytes:
    dims = b"".join(nested(2, number(1, dim)) for dim in shape)
    place = number(3, shard) + number(4, offset) + number(5, size)
    return b"".join(
        [number(1, kind), nested(2, dims), place, b"\x35" + struct.pack("<I", crc), nested(7, b"") * slices]
    )


def block(items: list[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    content, restarts, last = b"", [], b""
    for index, (key, value) in enumerate(items):
        shared = 0
        if index % restart_interval == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def file(blocks: list[bytes], kind: int = 0) -> bytes:
    """A table of these data blocks, every CRC right, whatever they hold."""
    raw, handles = b"", []

    def append(content: bytes, kind: int = 0) -> bytes:
        nonlocal raw
        handle = varint(len(raw)) + varint(len(content))
        content += bytes([kind])
        raw += content + struct.pack("<I", framing.masked_crc(content))
        return handle

    for position, content in enumerate(blocks):
        handles.append((b"%05d" % position, append(content, kind)))
    footer = append(block([], 16)) + append(block(handles, 1))
    return raw + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def table(items: Mapping[bytes, bytes], per_block: int = 4) -> bytes:
    pairs = sorted(items.items())
    return file([block(pairs[start : start + per_block], 3) for start in range(0, len(pairs), per_block)])


def index_path(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def data_path(prefix: Path, shard: int = 0, shards: int = 1) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}")


def write(prefix: Path, variables: Mapping[str, np.ndarray], shards: int = 1) -> dict[bytes, bytes]:
    """Write a checkpoint, its variables dealt to the shards in turn; what its index holds."""
    items, data = {b"": header(shards)}, [b""] * shards
    for position, (name, values) in enumerate(variables.items()):
        shard, raw = position % shards, values.tobytes()
        place = {"shard": shard, "offset": len(data[shard]), "size": len(raw), "crc": framing.masked_crc(raw)}
        items[name.encode()] = entry(TYPES[values.dtype.name], values.shape, **place)
        data[shard] += raw
    for shard, raw in enumerate(data):
        data_path(prefix, shard, shards).write_bytes(raw)
    index_path(prefix).write_bytes(table(items))
    return items
