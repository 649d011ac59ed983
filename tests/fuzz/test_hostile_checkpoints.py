"""Lengths in a TensorFlow checkpoint are compared with what its files have before anything of that length is made."""

import struct
from pathlib import Path

import pytest

from from2018 import tf_bundle as bundle
from fuzz.hostile import HUGE, needs_limits, refused
from fuzz.mutations import varint
from topgb.checksums import masked_crc
from topgb.from2018.checkpoint import open_checkpoint
from topgb.from2018.sstable import MAX_FILE_BYTES, MAX_KEYS, MAX_VALUE_BYTES

pytestmark = needs_limits


@pytest.fixture
def prefix(tmp_path) -> Path:
    prefix = tmp_path / "model.ckpt"
    bundle.data_path(prefix).write_bytes(bytes(8))
    return prefix


def _index(prefix: Path, raw: bytes) -> int:
    return bundle.index_path(prefix).write_bytes(raw) + 8


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("place", ["footer", "index"])
def test_a_block_of_a_huge_size(size, place, prefix):
    handle = varint(0) + varint(size)
    content = bundle.block([(b"a", handle)], 1) + b"\0"
    own = handle if place == "footer" else varint(0) + varint(len(content) - 1)
    raw = content + struct.pack("<I", masked_crc(content)) + (b"\0\0" + own).ljust(40, b"\0")
    refused(lambda: open_checkpoint(prefix), _index(prefix, raw + struct.pack("<Q", 0xDB4775248B80FB57)), "damaged")


@pytest.mark.parametrize("length", HUGE)
@pytest.mark.parametrize("place", range(3))
def test_an_entry_of_huge_lengths(length, place, prefix):
    numbers = [varint(0), varint(1), varint(1)]
    numbers[place] = varint(length)
    raw = bundle.file([b"".join(numbers) + b"ab" + struct.pack("<I", 0)])
    refused(lambda: open_checkpoint(prefix), _index(prefix, raw), "exceeds its block|more than 64 bits")


def test_a_huge_number_of_restart_points(prefix):
    refused(lambda: open_checkpoint(prefix), _index(prefix, bundle.file([b"\xff" * 4])), "more restart points")


@pytest.mark.parametrize("shape", [(2**31, 2**31), (2**32, 2**32), (2**63 - 1,), (2**21,) * 3, (2**62, 4), (2**40,)])
@pytest.mark.parametrize("size", [4, 2**40 * 4, 2**63 - 1])
def test_a_variable_of_a_huge_shape(shape, size, prefix):
    items = {b"": bundle.header(), b"a": bundle.entry(shape=shape, size=size)}
    refused(lambda: open_checkpoint(prefix).read("a"), _index(prefix, bundle.table(items)), "model.ckpt")


def test_a_snappy_block_that_claims_to_be_huge(prefix):
    raw = bundle.file([varint(2**32 - 1) + b"\xfe\1\0" * 50], kind=1)
    refused(lambda: open_checkpoint(prefix), _index(prefix, raw), "compressed with snappy")


def test_keys_that_share_almost_all_with_each_other(prefix):
    """Six bytes each in the file, five hundred in memory: 4 MB held 750."""
    start = b"\0\0" + varint(len(bundle.header())) + bundle.header() + b"\0" + varint(508) + b"\0" + b"k" * 508
    keys = (bytes((1 + (n >> 14), n >> 7 & 127, n & 127)) for n in range(100_000))
    entries = start + b"".join(varint(508) + b"\3\0" + key for key in keys)
    raw = bundle.file([entries + struct.pack("<I", 0)])
    assert len(raw) < MAX_FILE_BYTES
    refused(lambda: open_checkpoint(prefix), _index(prefix, raw), f"more than {MAX_KEYS} keys")


@pytest.mark.parametrize("content", [b"\x3a\0", b"\x12\0"], ids=["slices", "dimensions"])
def test_an_entry_of_very_many_empty_messages(content, prefix):
    many = content * (MAX_VALUE_BYTES * 3 // 4)
    value = bundle.nested(2, many) if content == b"\x12\0" else many
    raw = bundle.table({b"": bundle.header(), b"a": value})
    refused(lambda: open_checkpoint(prefix), _index(prefix, raw), "an entry has")
