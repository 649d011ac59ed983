"""TensorFlow checkpoints: those that the 2018 scripts wrote, and small ones written here, sound and damaged."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from from2018 import tf_bundle as bundle
from golden.cases import FOLDER
from topgb.checksums import masked_crc
from topgb.errors import InputError
from topgb.from2018.checkpoint import TF1Checkpoint, open_checkpoint
from topgb.from2018.sstable import MAX_FILE_BYTES, MAX_KEY_BYTES, read_table
from topgb.records import framing


def _some_variables() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    variables = {f"tower/of_{name}": (random.normal(size=(2, 3)) * 9).astype(name) for name in bundle.TYPES}
    return variables | {
        "global_step": np.array(47, np.int64),
        "none": np.zeros((0, 5), np.float32),
        "tower/größe": np.arange(4, dtype=np.float32).reshape(1, 2, 2),
    }


def _assert_same(values: np.ndarray, expected: np.ndarray) -> None:
    assert values.dtype == expected.dtype
    assert values.shape == expected.shape
    assert values.tobytes() == expected.tobytes()


@pytest.fixture
def prefix(tmp_path) -> Path:
    return tmp_path / "model.ckpt-31"


# --- Sound checkpoints.


@pytest.mark.parametrize("shards", [1, 3])
def test_what_was_written_is_read(prefix, shards):
    variables = _some_variables()
    bundle.write(prefix, variables, shards)
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.prefix == prefix
    assert checkpoint.names() == sorted(variables, key=str.encode)
    for name, expected in variables.items():
        assert checkpoint.shape(name) == expected.shape
        assert checkpoint.entries[name].dtype == expected.dtype
        _assert_same(checkpoint.read(name), expected)


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
        _assert_same(checkpoint.read(name), expected)


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


# --- What is not read.


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
    _assert_same(checkpoint.read("a"), np.ones(3, np.float32))
    with pytest.raises(InputError, match=f"'b' .*{words}, which topgb does not read"):
        checkpoint.read("b")


def test_a_partitioned_variable_is_listed_but_not_read(prefix):
    items = bundle.write(prefix, {"a": np.ones(3, np.float32)})
    more = {b"b": bundle.entry(1, (3,), size=0, slices=2), b"\0\x01b\xff\x00": bundle.entry(1, (3,), size=12)}
    bundle.index_path(prefix).write_bytes(bundle.table(items | more))
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.names() == ["a", "b"]
    _assert_same(checkpoint.read("a"), np.ones(3, np.float32))
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


# --- Damage, byte by byte and at random.


def _read_all(checkpoint: TF1Checkpoint) -> dict[str, np.ndarray]:
    """What can be read; what cannot is refused in one sentence."""
    values = {}
    for name in checkpoint.names():
        try:
            values[name] = checkpoint.read(name)
        except InputError as error:
            _assert_sentence(error, checkpoint.prefix)
    return values


def _assert_sentence(error: InputError, prefix: Path) -> None:
    assert str(error).isprintable()
    assert str(prefix) in str(error)


def _open_or_refuse(prefix: Path) -> dict[str, np.ndarray] | None:
    """What can be read of a checkpoint, None where it cannot be opened."""
    try:
        checkpoint = open_checkpoint(prefix)
    except InputError as error:
        _assert_sentence(error, prefix)
        return None
    return _read_all(checkpoint)


def test_an_index_cut_off_anywhere_is_refused(prefix):
    bundle.write(prefix, _some_variables())
    raw = bundle.index_path(prefix).read_bytes()
    for length in range(len(raw)):
        bundle.index_path(prefix).write_bytes(raw[:length])
        assert _open_or_refuse(prefix) is None, length


def test_a_flip_in_the_index_is_refused_or_without_effect(prefix):
    variables = _some_variables()
    bundle.write(prefix, variables)
    raw = bundle.index_path(prefix).read_bytes()
    refused = 0
    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        bundle.index_path(prefix).write_bytes(flipped)
        values = _open_or_refuse(prefix)
        refused += values is None
        if values is not None:
            assert values.keys() == variables.keys()
            for name, expected in variables.items():
                _assert_same(values[name], expected)
    # The metaindex block, its handle and the footer's padding are not looked at.
    assert refused > len(raw) - 60


def test_a_flip_in_the_data_is_seen_in_that_variable_alone(prefix):
    variables = _some_variables()
    bundle.write(prefix, variables)
    checkpoint = open_checkpoint(prefix)
    raw = bundle.data_path(prefix).read_bytes()
    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        bundle.data_path(prefix).write_bytes(flipped)
        [hit] = [n for n, e in checkpoint.entries.items() if e.offset <= position < e.offset + e.size]
        values = _read_all(checkpoint)
        assert values.keys() == variables.keys() - {hit}
        with pytest.raises(InputError, match="does not match its CRC"):
            checkpoint.read(hit)


def test_data_cut_off_anywhere_is_refused(prefix):
    bundle.write(prefix, _some_variables())
    raw = bundle.data_path(prefix).read_bytes()
    for length in range(len(raw)):
        bundle.data_path(prefix).write_bytes(raw[:length])
        with pytest.raises(InputError, match=rf"data-00000-of-00001 is cut off: it has {length} bytes"):
            open_checkpoint(prefix)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    prefix = tmp_path_factory.mktemp("fuzz") / "sound"
    variables = _some_variables()
    bundle.write(prefix, variables, shards=2)
    values = _open_or_refuse(prefix)
    assert values is not None
    assert values.keys() == variables.keys()
    return prefix


def _edited(data: st.DataObject, raw: bytes) -> bytes:
    edited = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(edited)))
        stop = data.draw(st.one_of(st.integers(start, min(start + 4, len(edited))), st.just(len(edited))))
        edited[start:stop] = data.draw(st.binary(max_size=4))
    return bytes(edited)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_odd_bytes_are_refused_or_without_effect(sound, data):
    odd, variables = sound.with_name("odd"), _some_variables()
    files = [bundle.index_path, lambda p: bundle.data_path(p, 0, 2), lambda p: bundle.data_path(p, 1, 2)]
    hit = data.draw(st.sets(st.integers(0, 2), min_size=1))
    for number, file in enumerate(files):
        raw = file(sound).read_bytes()
        file(odd).write_bytes(_edited(data, raw) if number in hit else raw)
    for name, values in (_open_or_refuse(odd) or {}).items():
        _assert_same(values, variables[name])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_odd_blocks_with_sound_crcs_never_end_in_a_trace(sound, data):
    """What no CRC shows: the table itself and its messages are odd."""
    odd = sound.with_name("odd")
    pairs = sorted(bundle.write(odd, _some_variables()).items())
    blocks = [bundle.block(pairs[:7], 3), bundle.block(pairs[7:], 3)]
    number = data.draw(st.integers(0, 1))
    blocks[number] = _edited(data, blocks[number])
    bundle.index_path(odd).write_bytes(bundle.file(blocks))
    total = bundle.data_path(odd).stat().st_size
    assert all(values.nbytes <= total for values in (_open_or_refuse(odd) or {}).values())


sizes = st.one_of(st.integers(-2, 9), st.sampled_from([2**31, 2**32 + 1, 2**62, 2**63 - 1, -(2**63)]), st.integers())
odd_entries = st.builds(
    bundle.entry,
    kind=st.one_of(st.sampled_from(sorted(bundle.TYPES.values())), st.integers(-1, 200)),
    shape=st.lists(sizes, max_size=4),
    shard=st.one_of(st.just(0), sizes),
    offset=sizes,
    size=sizes,
    crc=st.integers(0, 2**32 - 1),
    slices=st.sampled_from([0, 0, 0, 1]),
)
ZEROS = bytes(256)


def _fitting_entry(kind: str, shape: list[int], offset: int) -> bytes:
    """An entry of zeros whose size and CRC agree with its shape."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    return bundle.entry(bundle.TYPES[kind], shape, 0, offset, size, framing.masked_crc(bytes(size)))


small = st.lists(st.integers(0, 4), max_size=3)
fitting_entries = st.builds(_fitting_entry, st.sampled_from(sorted(bundle.TYPES)), small, st.integers(0, 300))


@settings(max_examples=300, deadline=None)
@given(entry=st.one_of(odd_entries, fitting_entries), shards=st.one_of(st.just(1), sizes))
def test_odd_numbers_never_end_in_a_trace(sound, entry, shards):
    odd = sound.with_name("odd_numbers")
    bundle.data_path(odd).write_bytes(ZEROS)
    bundle.index_path(odd).write_bytes(bundle.table({b"": bundle.header(shards), b"a": entry}))
    for values in (_open_or_refuse(odd) or {}).values():
        assert values.nbytes <= len(ZEROS)
        assert not values.any()


# --- The checkpoints that the 2018 scripts wrote.

DBOF = {
    "global_step": ((), "int32"),
    "tower/experts/biases": ((7724,), "float32"),
    "tower/experts/weights": ((32, 7724), "float32"),
    "tower/gates/weights": ((32, 11586), "float32"),
    "tower/video_DBOF/dim_red": ((64, 1024), "float32"),
}
NETVLAD = {
    "tower/hidden1_biases": ((32,), "float32"),
    "tower/video_VLAD/cluster_weights2": ((1, 1024, 8), "float32"),
    "tower/gating_bn/moving_variance": ((32,), "float32"),
}
QUANTIZED = {
    "tower/hidden1_weights_quants": ((8704, 32), "uint8"),
    "tower/hidden1_weights_space": ((256,), "float32"),
}
LSTM = {
    "tower/bidirectional_rnn/bw/multi_rnn_cell/cell_0/basic_lstm_cell/kernel": ((1168, 64), "float32"),
    "tower/fully_connected/weights": ((32, 3862), "float32"),
}
SHADOW = "/ExponentialMovingAverage"
# Number of variables, and some of them.
GOLDEN = {
    "dbof/inference_model": (26, DBOF),
    "dbof_ema/inference_model": (26, DBOF),
    "dbof_ema/model.ckpt-31": (87, {**DBOF, f"tower/experts/weights{SHADOW}": ((32, 7724), "float32")}),
    "ensemble/inference_model": (
        65,
        {
            **{f"model_0/{name}": known for name, known in (NETVLAD | QUANTIZED).items()},
            **{f"model_1/{name}": known for name, known in DBOF.items()},
            **{f"model_2/{name}": known for name, known in LSTM.items()},
        },
    ),
    "lstm/inference_model": (9, LSTM),
    "netvlad/inference_model": (27, NETVLAD | {"tower/hidden1_weights": ((8704, 32), "float32")}),
    "netvlad_uniform/inference_model": (30, NETVLAD | QUANTIZED),
}


@pytest.fixture(scope="module")
def golden() -> Path:
    if not (FOLDER / "ckpt").is_dir():
        pytest.skip("the golden checkpoints (../shared/golden/ckpt beside the checkout, or TOPGB_GOLDEN) are absent")
    return FOLDER / "ckpt"


def test_every_golden_checkpoint_is_listed_here(golden):
    found = {str(path.relative_to(golden).with_suffix("")) for path in golden.rglob("*.index")}
    assert found == GOLDEN.keys()


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_checkpoint_is_read(golden, name):
    count, known = GOLDEN[name]
    checkpoint = open_checkpoint(golden / name)
    assert len(checkpoint.names()) == count
    read = 0
    for variable in checkpoint.names():
        values = checkpoint.read(variable)
        assert values.shape == checkpoint.shape(variable)
        assert np.isfinite(values).all()
        read += values.nbytes
    # The data file is nothing but the variables.
    assert read == (golden / f"{name}.data-00000-of-00001").stat().st_size
    for variable, (shape, dtype) in known.items():
        values = checkpoint.read(variable)
        assert (values.shape, values.dtype.name) == (shape, dtype)


def test_golden_values(golden):
    run, exported = (
        open_checkpoint(golden / "dbof_ema/model.ckpt-31"),
        open_checkpoint(golden / "dbof_ema/inference_model"),
    )
    assert run.read("global_step") == 31
    np.testing.assert_allclose(run.read("beta1_power"), 0.9**32, rtol=1e-5)
    np.testing.assert_allclose(run.read("beta2_power"), 0.999**32, rtol=1e-5)
    averaged = [name for name in exported.names() if name != "global_step"]
    assert len(averaged) == 25
    for name in averaged:
        _assert_same(exported.read(name), run.read(name + SHADOW))
    assert (exported.read("tower/experts/weights") != run.read("tower/experts/weights")).any()


def test_golden_ensemble_holds_its_members(golden):
    ensemble = open_checkpoint(golden / "ensemble")
    compared = 0
    for number, member in enumerate(("netvlad_uniform", "dbof", "lstm")):
        alone = open_checkpoint(golden / member)
        for name in alone.names():
            _assert_same(ensemble.read(f"model_{number}/{name}"), alone.read(name))
            compared += 1
    assert compared == len(ensemble.names())


def test_golden_codes_stand_for_the_weights(golden):
    plain, coded = open_checkpoint(golden / "netvlad"), open_checkpoint(golden / "netvlad_uniform")
    for name in ("tower/hidden1_weights", "tower/experts/weights", "tower/gates/weights"):
        space, weights = coded.read(f"{name}_space"), plain.read(name)
        values = space[coded.read(f"{name}_quants")]
        assert np.abs(values - weights).max() <= (space[1] - space[0]) * 0.51


def test_the_golden_folder_of_two_lists_both(golden):
    with pytest.raises(InputError, match=r"one of inference_model, model\.ckpt-31,"):
        open_checkpoint(golden / "dbof_ema")
