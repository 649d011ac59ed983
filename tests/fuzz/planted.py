"""What takes 100 MB, by whom: the limit must notice each. For a fresh process, where malloc has kept nothing."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import torch

from fuzz.limits import limited
from fuzz.refusals import unless_refused
from topgb.records import wire
from topgb.records.framing import Place
from topgb.records.protobuf_decoding import parse_record

SIZE = 100 << 20
STREAM = zlib.compress(bytes(SIZE), 1)
PLANTED: dict[str, Callable[[], object]] = {
    "bytes": lambda: bytes(SIZE),
    "numpy, untouched": lambda: np.empty(SIZE, np.uint8),
    "numpy": lambda: np.zeros(SIZE // 4, np.float32),
    "torch, untouched": lambda: torch.empty(SIZE, dtype=torch.uint8),
    "torch": lambda: torch.zeros(SIZE // 4),
    "many small objects": lambda: [struct.pack("<Q", n) for n in range(SIZE // 40)],
    "zlib": lambda: zlib.decompress(STREAM),
}


def unnoticed(name: str) -> str:
    """What is wrong with the limit for `PLANTED[name]`, or nothing."""
    PLANTED[name]()
    try:
        with limited(0):
            PLANTED[name]()
    except (MemoryError, RuntimeError):
        pass
    else:
        return "100 MB were not noticed"
    # zlib has the pieces and the whole for a moment.
    with limited(2 * SIZE):
        PLANTED[name]()
    return ""


def protobuf_short_of_memory() -> str:
    """What `unless_refused` says of a record that protobuf has too little memory for."""
    frames = wire.field(0x0A, wire.field(0x0A, b"rgb"), wire.field(0x12, b"\x0a\4\x0a\2\x0a\0" * (1 << 20)))
    record = memoryview(wire.field(0x12, frames))
    try:
        with limited(0):
            unless_refused(lambda: parse_record(record, Place("large", 0, 0)), "large")
    except AssertionError as error:
        return str(error)
    return "nothing"
