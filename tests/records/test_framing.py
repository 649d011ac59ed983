import io
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgb.checksums import masked_crc
from topgb.records.framing import data_crc_matches, frame_record, index_records, write_record


def indexed(data: bytes):
    buffer = memoryview(data)
    return buffer, index_records(buffer)


def test_known_bytes():
    # The record of the payload "abc" as TensorFlow writes it.
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert frame_record(b"abc")[:8] == struct.pack("<Q", 3)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_round_trip(payloads):
    file = io.BytesIO()
    for payload in payloads:
        write_record(file, payload)
    buffer, index = indexed(file.getvalue())
    assert index.damage is None
    spans = list(zip(index.offsets.tolist(), index.lengths.tolist(), strict=True))
    assert [bytes(buffer[o : o + n]) for o, n in spans] == payloads
    assert all(data_crc_matches(buffer[o : o + n], buffer, o + n) for o, n in spans)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.data())
def test_any_cut_keeps_the_records_before_it(payloads, data):
    framed = [frame_record(payload) for payload in payloads]
    whole = b"".join(framed)
    cut = data.draw(st.integers(0, len(whole) - 1))
    _, index = indexed(whole[:cut])
    kept, end = 0, 0
    while end + len(framed[kept]) <= cut:
        end += len(framed[kept])
        kept += 1
    assert len(index) == kept
    if cut == end:
        assert index.damage is None
    else:
        assert (index.damage.record, index.damage.offset) == (kept, end)


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=5), st.data())
def test_any_flipped_byte_is_noticed(payloads, data):
    whole = bytearray(b"".join(map(frame_record, payloads)))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    buffer, index = indexed(bytes(whole))
    intact = all(
        data_crc_matches(buffer[o : o + n], buffer, o + n)
        for o, n in zip(index.offsets.tolist(), index.lengths.tolist(), strict=True)
    )
    assert index.damage is not None or not intact


@pytest.mark.parametrize("length", [2**63 - 1, 2**64 - 1, 2**40])
def test_hostile_length_allocates_nothing(length):
    head = struct.pack("<Q", length)
    data = frame_record(b"good") + head + struct.pack("<I", masked_crc(head)) + b"x" * 100
    tracemalloc.start()
    _, index = indexed(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index) == 1
    assert "cut off" in index.damage.reason
    assert peak < 100_000


@given(st.binary(max_size=200))
def test_random_bytes_never_fail(data):
    indexed(data)
