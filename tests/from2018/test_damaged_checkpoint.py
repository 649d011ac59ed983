"""Checkpoints with damage, byte by byte and at random: refused in a sentence, or read as they were."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from from2018 import tf_bundle as bundle
from from2018.variables import assert_same, some_variables
from topgb.errors import InputError
from topgb.from2018.checkpoint import TF1Checkpoint, open_checkpoint
from topgb.records import framing


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
    bundle.write(prefix, some_variables())
    raw = bundle.index_path(prefix).read_bytes()
    for length in range(len(raw)):
        bundle.index_path(prefix).write_bytes(raw[:length])
        assert _open_or_refuse(prefix) is None, length


def test_a_flip_in_the_index_is_refused_or_without_effect(prefix):
    variables = some_variables()
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
                assert_same(values[name], expected)
    # The metaindex block, its handle and the footer's padding are not looked at.
    assert refused > len(raw) - 60


def test_a_flip_in_the_data_is_seen_in_that_variable_alone(prefix):
    variables = some_variables()
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
    bundle.write(prefix, some_variables())
    raw = bundle.data_path(prefix).read_bytes()
    for length in range(len(raw)):
        bundle.data_path(prefix).write_bytes(raw[:length])
        with pytest.raises(InputError, match=rf"data-00000-of-00001 is cut off: it has {length} bytes"):
            open_checkpoint(prefix)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    prefix = tmp_path_factory.mktemp("fuzz") / "sound"
    variables = some_variables()
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
    odd, variables = sound.with_name("odd"), some_variables()
    files = [bundle.index_path, lambda p: bundle.data_path(p, 0, 2), lambda p: bundle.data_path(p, 1, 2)]
    hit = data.draw(st.sets(st.integers(0, 2), min_size=1))
    for number, file in enumerate(files):
        raw = file(sound).read_bytes()
        file(odd).write_bytes(_edited(data, raw) if number in hit else raw)
    for name, values in (_open_or_refuse(odd) or {}).items():
        assert_same(values, variables[name])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_odd_blocks_with_sound_crcs_never_end_in_a_trace(sound, data):
    """What no CRC shows: the table itself and its messages are odd."""
    odd = sound.with_name("odd")
    pairs = sorted(bundle.write(odd, some_variables()).items())
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
