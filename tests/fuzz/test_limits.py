"""The limit on memory holds for whoever allocates; without that, no harness would notice."""

import struct
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fuzz.limits import Peak, limited
from fuzz.refusals import unless_refused
from topgb.errors import InputError
from topgb.records import wire
from topgb.records.framing import Place
from topgb.records.protobuf_decoding import parse_record

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
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


@pytest.mark.parametrize("planted", PLANTED)
def test_100_mb_are_noticed(planted):
    with limited(0), pytest.raises((MemoryError, RuntimeError)):
        PLANTED[planted]()
    with limited(SIZE):
        PLANTED[planted]()


def test_what_protobuf_takes_is_no_damage():
    """It says with the error of a damaged message that the memory did not suffice."""
    frames = wire.field(0x0A, wire.field(0x0A, b"rgb"), wire.field(0x12, b"\x0a\4\x0a\2\x0a\0" * (1 << 20)))
    record = memoryview(wire.field(0x12, frames))
    with limited(0), pytest.raises(AssertionError, match="did not suffice"):
        unless_refused(lambda: parse_record(record, Place("large", 0, 0)), "large")


def test_a_peak_that_was_freed_again_is_seen():
    peak = Peak()
    with peak.measured(0):
        np.ones(SIZE, np.uint8)
    assert peak.most > SIZE * 0.9


def test_an_undocumented_end_is_no_refusal():
    for error in (InputError("no name"), InputError("file\x1b: escape")):
        with pytest.raises(AssertionError):
            unless_refused(lambda error=error: _raise(error), "file")
    with pytest.raises(KeyError):
        unless_refused(lambda: _raise(KeyError("file")), "file")


def _raise(error: Exception) -> None:
    raise error
