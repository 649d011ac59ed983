"""Lengths in records are compared with what the file has before anything of that length is made."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fuzz.hostile import HUGE, needs_limits, refused
from fuzz.limits import MOST_BYTES, Peak, limited
from fuzz.mutations import varint
from fuzz.records_target import CLASSES, SPECS
from fuzz.refusals import unless_refused
from topgb.checksums import masked_crc
from topgb.errors import InputError
from topgb.records import wire
from topgb.records.codec import decode_record, encode_example, encode_sequence_example, read_identity
from topgb.records.dataset import Dataset
from topgb.records.framing import Place, frame_record
from topgb.records.layout import Layout
from topgb.records.protobuf_decoding import decode_generally
from topgb.records.shards import Shard

pytestmark = needs_limits


def _dataset(path: Path, spec=SPECS[0]) -> Dataset:
    return Dataset([Shard(str(path))], spec, CLASSES, 4, "stop")


@pytest.mark.parametrize("length", HUGE)
def test_a_record_of_a_huge_length_with_a_sound_crc(length, tmp_path):
    path = tmp_path / "huge.tfrecord"
    head = struct.pack("<Q", length)
    path.write_bytes(head + struct.pack("<I", masked_crc(head)) + bytes(100))
    refused(lambda: _dataset(path), 112, "cut off")


@pytest.mark.parametrize("length", HUGE)
@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_a_huge_length_anywhere_in_a_message(spec, length):
    """Each byte of a small record is replaced by the length in turn, and so every length field is hit."""
    frames = spec.level == "frame"
    values = {f.name: np.ones((2, f.size) if frames else f.size, f.dtype) for f in spec.features}
    payload = (encode_sequence_example if frames else encode_example)("v", values, [1])
    layout, place = Layout(spec, CLASSES), Place("huge", 0, 0)
    with limited(len(payload)):
        for position in [*range(60), *range(60, len(payload), 29)]:
            odd = memoryview(payload[:position] + varint(length) + payload[position + 1 :])
            for read in (decode_record, decode_generally, read_identity):
                unless_refused(lambda read=read, odd=odd: read(odd, layout, place), "huge")


def test_a_feature_list_of_nothing_takes_no_frames_for_it():
    """Two bytes are an empty frame, which as an array of the spec's width would be far more."""
    frames = wire.field(0x12, wire.field(0x0A, wire.field(0x0A, b"rgb"), wire.field(0x12, b"\x0a\0" * 200_000)))
    payload = wire.field(0x0A, wire.field(0x0A, wire.field(0x0A, b"id"), b"\x12\x05\x0a\x03\x0a\x01v")) + frames
    layout = Layout(SPECS[0], CLASSES)
    refused(lambda: decode_record(memoryview(payload), layout, Place("empty", 0, 0)), len(payload), "holds nothing")


def test_a_gzip_bomb_goes_to_disk(tmp_path):
    path = tmp_path / "bomb.tfrecord"
    path.write_bytes(gzip.compress(bytes(2 * MOST_BYTES), 1))
    assert path.stat().st_size < 1 << 20
    peak = Peak()
    with (
        peak.measured(path.stat().st_size),
        pytest.raises(InputError, match="whose bytes never arrived"),
    ):
        _dataset(path)
    assert peak.most < MOST_BYTES


def test_a_broken_gzip_stream_of_one_huge_record(tmp_path):
    path = tmp_path / "huge.tfrecord"
    head = struct.pack("<Q", 2**62)
    path.write_bytes(gzip.compress(frame_record(b"") + head + struct.pack("<I", masked_crc(head)))[:-6])
    refused(lambda: _dataset(path), 100, "broken|cut off")
