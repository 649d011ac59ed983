"""TensorFlow checkpoints that are written here: sound ones are read, odd ones are refused."""

import struct

import numpy as np
import pytest

from from2018 import tf_bundle as bundle
from from2018.variables import assert_same, some_variables
from topgb.checksums import masked_crc
from topgb.errors import InputError
from topgb.from2018.checkpoint import open_checkpoint
from topgb.from2018.sstable import MAX_FILE_BYTES, MAX_KEY_BYTES, read_table
from topgb.records import framing


@pytest.mark.parametrize("shards", [1, 3])
def test_what_was_written_is_read(prefix, shards):
    variables = some_variables()
    bundle.write(prefix, variables, shards)
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.prefix == prefix
    assert checkpoint.names() == sorted(variables, key=str.encode)
    for name, expected in variables.items():
        assert checkpoint.shape(name) == expected.shape
        assert checkpoint.entries[name].dtype == expected.dtype
        assert_same(checkpoint.read(name), expected)


def test_the_values_may_be_changed(prefix):
    bundle.write(prefix, {"a": np.zeros(3, np.float32), "b": np.zeros(3, np.bool_)})
    checkpoint = open_checkpoint(prefix)
    for name in checkpoint.names():
        checkpoint.read(name)[0] = 1
    assert not checkpoint.read("a").any()


def test_prefix_index_and_folder_name_the_same(prefix):
    bundle.write(prefix, {"a": np.ones(2, np.float32)})
    for path in (prefix, str(prefix), bundle.index_path(prefix), prefix.parent):
        assert open_checkpoint(path).prefix == prefix


def test_a_prefix_beside_a_folder_of_its_name(prefix):
    prefix.mkdir()
    bundle.write(prefix, {"a": np.ones(2, np.float32)})
    assert open_checkpoint(prefix).names() == ["a"]


def test_many_variables_in_many_blocks(prefix):
    variables = {f"layer_{n // 10}/weights_{n}": np.full(2, n, np.float32) for n in range(500)}
    bundle.write(prefix, variables)
    checkpoint = open_checkpoint(prefix)
    assert len(checkpoint.names()) == 500
    for name, expected in variables.items():
        assert_same(checkpoint.read(name), expected)


def test_a_bool_of_any_byte_is_true_or_false(prefix):
    raw = bytes([0, 1, 2, 255])
    items = {b"": bundle.header(), b"a": bundle.entry(10, (4,), size=4, crc=framing.masked_crc(raw))}
    bundle.data_path(prefix).write_bytes(raw)
    bundle.index_path(prefix).write_bytes(bundle.table(items))
    values = open_checkpoint(prefix).read("a")
    assert values.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_the_crc_is_that_of_tensorflow():
    assert masked_crc(b"") == 0xA282EAD8
    crc = 0xE3069283  # CRC-32C's check value, of "123456789".
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint .*model\.ckpt .*name its prefix or its folder"):
        open_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=r"no file \*\.index"):
        open_checkpoint(tmp_path)


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        open_checkpoint(tmp_path / ("x" * 300))
    long = tmp_path / ("x" * 240)
    bundle.index_path(long).write_bytes(bundle.table({b"": bundle.header(), b"a": bundle.entry()}))
    with pytest.raises(InputError, match="cannot read"):
        open_checkpoint(long)


def test_several_in_a_folder_are_listed(tmp_path):
    for name in ("model.ckpt-7", "model.ckpt-31"):
        bundle.write(tmp_path / name, {"a": np.ones(1, np.float32)})
    with pytest.raises(InputError, match=r"several .* one of model\.ckpt-31, model\.ckpt-7,"):
        open_checkpoint(tmp_path)


def test_an_unknown_variable_is_named(prefix):
    bundle.write(prefix, {"tower/weights": np.ones(1, np.float32)})
    checkpoint = open_checkpoint(prefix)
    for ask in (checkpoint.read, checkpoint.shape):
        with pytest.raises(InputError, match=r"no variable 'tower/bias'; it has 'tower/weights'"):
            ask("tower/bias")


def test_a_missing_shard_is_named(prefix):
    bundle.write(prefix, {"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}, shards=2)
    bundle.data_path(prefix, 1, 2).unlink()
    with pytest.raises(InputError, match=r"model\.ckpt-31\.data-00001-of-00002 is missing"):
        open_checkpoint(prefix)


def test_a_shard_that_goes_after_opening(prefix):
    bundle.write(prefix, {"a": np.ones(3, np.float32)})
    checkpoint = open_checkpoint(prefix)
    bundle.data_path(prefix).write_bytes(b"1234")
    with pytest.raises(InputError, match="'a' does not match its CRC"):
        checkpoint.read("a")
    bundle.data_path(prefix).unlink()
    with pytest.raises(InputError, match=r"cannot read .*data-00000-of-00001"):
        checkpoint.read("a")


def test_a_shard_that_shrinks_to_what_its_crc_says(prefix):
    items = bundle.write(prefix, {"a": np.zeros(3, np.float32)})
    items[b"a"] = bundle.entry(1, (3,), size=12, crc=framing.masked_crc(bytes(8)))
    bundle.index_path(prefix).write_bytes(bundle.table(items))
    checkpoint = open_checkpoint(prefix)
    bundle.data_path(prefix).write_bytes(bytes(8))
    with pytest.raises(InputError, match="'a' does not match its CRC"):
        checkpoint.read("a")


@pytest.mark.parametrize(("kind", "words"), [(7, "type string"), (14, "type bfloat16"), (8, "type number 8"), (0, "0")])
def test_other_types_are_listed_but_not_read(prefix, kind, words):
    items = bundle.write(prefix, {"a": np.ones(3, np.float32)})
    bundle.index_path(prefix).write_bytes(bundle.table(items | {b"b": bundle.entry(kind, (3,), size=6)}))
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.names() == ["a", "b"]
    assert checkpoint.shape("b") == (3,)
    assert checkpoint.entries["b"].dtype is None
    assert_same(checkpoint.read("a"), np.ones(3, np.float32))
    with pytest.raises(InputError, match=f"'b' .*{words}, which topgb does not read"):
        checkpoint.read("b")


def test_a_partitioned_variable_is_listed_but_not_read(prefix):
    items = bundle.write(prefix, {"a": np.ones(3, np.float32)})
    more = {b"b": bundle.entry(1, (3,), size=0, slices=2), b"\0\x01b\xff\x00": bundle.entry(1, (3,), size=12)}
    bundle.index_path(prefix).write_bytes(bundle.table(items | more))
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.names() == ["a", "b"]
    assert_same(checkpoint.read("a"), np.ones(3, np.float32))
    with pytest.raises(InputError, match="'b' is partitioned"):
        checkpoint.read("b")


def test_snappy_is_refused_by_name(prefix):
    bundle.write(prefix, {"a": np.ones(3, np.float32)})
    bundle.index_path(prefix).write_bytes(bundle.file([bundle.block([(b"", bundle.header())], 16)], kind=1))
    with pytest.raises(InputError, match="compressed with snappy"):
        open_checkpoint(prefix)
    bundle.index_path(prefix).write_bytes(bundle.file([bundle.block([(b"", bundle.header())], 16)], kind=2))
    with pytest.raises(InputError, match="unknown type 2"):
        open_checkpoint(prefix)


ODD_ENTRIES = {
    "negative dimension": (bundle.entry(shape=(-1, -1)), "shape of the variable 'a' is not possible"),
    "too many dimensions": (bundle.entry(shape=(1,) * 65), "shape of the variable 'a' is not possible"),
    "unknown rank": (
        bundle.entry() + bundle.nested(2, bundle.number(3, 1)),
        "shape of the variable 'a' is not possible",
    ),
    "empty but huge": (bundle.entry(shape=(0, 1 << 62), size=0), "shape of the variable 'a' is not possible"),
    "product beyond 64 bits": (bundle.entry(shape=(1 << 33, 1 << 33)), "shape of the variable 'a' is not possible"),
    "size and shape differ": (bundle.entry(shape=(2,)), r"'a' is float32 \[2\], but has 4 bytes"),
    "huge but consistent": (
        bundle.entry(shape=(1 << 50,), size=1 << 52),
        "cut off: it has 8 bytes, but the variable 'a'",
    ),
    "offset beyond the end": (bundle.entry(offset=5), "cut off: it has 8 bytes, but the variable 'a' ends at byte 9"),
    "offset near 64 bits": (bundle.entry(offset=(1 << 63) - 1), "cut off"),
    "negative offset": (bundle.entry(offset=-1), "place of the variable 'a' is not possible"),
    "negative size": (bundle.entry(kind=7, size=-1), "place of the variable 'a' is not possible"),
    "negative shard": (bundle.entry(shard=-1), "place of the variable 'a' is not possible"),
    "shard beyond their number": (bundle.entry(shard=1), "place of the variable 'a' is not possible"),
    "other CRC": (bundle.entry(crc=1), "'a' does not match its CRC"),
    "no message": (b"\x12\xff", "entry of 'a' is damaged"),
}


@pytest.mark.parametrize("case", ODD_ENTRIES)
def test_an_odd_entry_is_refused(prefix, case):
    entry, words = ODD_ENTRIES[case]
    bundle.data_path(prefix).write_bytes(bytes(8))
    bundle.index_path(prefix).write_bytes(bundle.table({b"": bundle.header(), b"a": entry}))
    with pytest.raises(InputError, match=words):
        open_checkpoint(prefix).read("a")


ODD_TABLES = {
    "no header": ({b"a": bundle.entry()}, "has no header"),
    "damaged header": ({b"": b"\x1a\xff"}, "its header is damaged"),
    "big-endian": ({b"": bundle.header(endianness=1)}, "big-endian"),
    "later version": ({b"": bundle.header(min_consumer=2)}, "reader of version 2"),
    "no shards": ({b"": bundle.header(shards=0)}, "0 data files"),
    "negative shards": ({b"": bundle.header(shards=-2)}, "-2 data files"),
    "many shards": (
        {b"": bundle.header(shards=2**31 - 1), b"a": bundle.entry()},
        "data-00000-of-2147483647 is missing",
    ),
    "name not UTF-8": ({b"": bundle.header(), b"\xff": bundle.entry()}, "not UTF-8"),
    "long name": (
        {b"": bundle.header(), b"a" * (MAX_KEY_BYTES + 1): bundle.entry()},
        f"a key has {MAX_KEY_BYTES + 1} bytes",
    ),
}


@pytest.mark.parametrize("case", ODD_TABLES)
def test_an_odd_table_is_refused(prefix, case):
    items, words = ODD_TABLES[case]
    bundle.data_path(prefix).write_bytes(bytes(8))
    bundle.index_path(prefix).write_bytes(bundle.table(items))
    with pytest.raises(InputError, match=words):
        open_checkpoint(prefix)


NO_RESTARTS = struct.pack("<I", 0)
ODD_BLOCKS = {
    "duplicate name": (bundle.block([(b"", bundle.header()), (b"a", b""), (b"a", b"")], 16), "not in order"),
    "names out of order": (bundle.block([(b"", bundle.header()), (b"b", b""), (b"a", b"")], 16), "not in order"),
    "too short": (b"abc", "too short"),
    "many restarts": (struct.pack("<I", 1 << 31), "more restart points"),
    "prefix of nothing": (b"\x01\x00\x00" + NO_RESTARTS, "exceeds its block"),
    "long value": (b"\x00\x00\xff\xff\xff\xff\x0f" + NO_RESTARTS, "exceeds its block"),
    "number cut off": (b"\x00\x00\xff" + NO_RESTARTS, "exceeds its block"),
    "number without an end": (b"\xff" * 11 + NO_RESTARTS, "more than 64 bits"),
}


@pytest.mark.parametrize("case", ODD_BLOCKS)
def test_an_odd_block_is_refused(tmp_path, case):
    content, words = ODD_BLOCKS[case]
    path = tmp_path / "odd.index"
    path.write_bytes(bundle.file([content]))
    with pytest.raises(InputError, match=f"odd.index is no checkpoint.s index, or is damaged.*{words}"):
        read_table(path)


def test_keys_that_unfold_to_much_more_are_refused(tmp_path):
    """Each key is its predecessor and a byte: n entries of five bytes hold n² / 2 bytes of keys."""
    entries = b"".join(bundle.varint(length) + b"\x01\x00a" for length in range(200_000))
    path = tmp_path / "bomb.index"
    path.write_bytes(bundle.file([entries + NO_RESTARTS]))
    with pytest.raises(InputError, match="a key has"):
        read_table(path)


def test_a_block_used_twice_is_refused(tmp_path):
    raw = bundle.file([NO_RESTARTS])
    once = bundle.varint(0) + bundle.varint(4)
    content = bundle.block([(b"a", once), (b"b", once)], 1) + b"\0"
    body = raw[:9] + content + struct.pack("<I", framing.masked_crc(content))
    footer = bundle.varint(0) + bundle.varint(0) + bundle.varint(9) + bundle.varint(len(content) - 1)
    path = tmp_path / "twice.index"
    path.write_bytes(body + footer.ljust(40, b"\0") + raw[-8:])
    with pytest.raises(InputError, match="its blocks overlap"):
        read_table(path)


def test_a_huge_index_is_not_read(tmp_path):
    path = tmp_path / "huge.index"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=f"more than {MAX_FILE_BYTES >> 20} MiB"):
        read_table(path)


@pytest.mark.parametrize("handle", [b"", b"\x80", b"\x00", b"\x00\xff\xff\xff\xff\xff\xff\xff\x7f"])
def test_an_odd_handle_is_refused(tmp_path, handle):
    content = bundle.block([(b"a", handle)], 1) + b"\0"
    footer = bundle.varint(0) + bundle.varint(0) + bundle.varint(0) + bundle.varint(len(content) - 1)
    raw = content + struct.pack("<I", framing.masked_crc(content)) + footer.ljust(40, b"\0")
    path = tmp_path / "odd.index"
    path.write_bytes(raw + struct.pack("<Q", 0xDB4775248B80FB57))
    with pytest.raises(InputError, match=r"a number is cut off|the block at byte 0 exceeds the file"):
        read_table(path)


def test_no_file_and_no_readable_file(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        read_table(tmp_path / "absent.index")
    with pytest.raises(InputError, match="cannot read"):
        read_table(tmp_path)
