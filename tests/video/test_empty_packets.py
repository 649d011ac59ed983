"""Packets of no bytes, which some programs write in the middle of a stream."""

import struct
from pathlib import Path

import av
import numpy as np

from topgb.video.decoding import Decoding
from topgb.video.extract import Notes, extract_video
from topgb.video.extractors import find_extractor
from video.clips import write_clip


def test_an_empty_packet_does_not_end_a_stream(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mkv", sound=None)
    packets = Decoding._packets

    def with_empty_ones(self):
        for number, packet in enumerate(packets(self)):
            if number == 10:
                yield av.Packet(0)
            yield packet

    monkeypatch.setattr(Decoding, "_packets", with_empty_ones)
    assert extract_video(str(clip), find_extractor("image")).notes.pictures == 30


def test_empty_packets_of_ogg_do_not_move_its_sound(tmp_path):
    """FFmpeg counts time for each, so that its time stamps go back by seconds at each page."""
    sound = find_extractor("sound")
    vorbis = {"codec": None, "sound": "vorbis", "layout": "stereo", "rate": 44100}
    clip = write_clip(tmp_path / "a.ogg", seconds=5, sound_options={"strict": "experimental"}, **vorbis)
    expected = extract_video(str(clip), sound)
    _add_empty_packets(clip, 4)
    with av.open(str(clip)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.pts is not None]
    assert sum(not packet.size for packet in packets) >= 240
    assert min(packet.pts for packet in packets) < 0
    found = extract_video(str(clip), sound)
    assert found.notes == expected.notes == Notes()
    assert found.seconds == expected.seconds == 5
    for name, values in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values)


def _add_empty_packets(path: Path, count: int) -> None:
    """Begin an Ogg file's sound with `count` packets of no bytes, and have as many follow each other packet."""
    data, place, pages, begun = path.read_bytes(), 0, [], False
    while place < len(data):
        header = bytearray(data[place : place + 27])
        lengths = data[place + 27 : place + 27 + header[26]]
        content = data[place + 27 + len(lengths) :][: sum(lengths)]
        place += 27 + len(lengths) + len(content)
        if any(header[6:14]):
            # A packet ends with a length below 255; pages of headers end at 0.
            more = b"".join(bytes([length]) + bytes(count) * (length < 255) for length in lengths)
            lengths = more if begun else bytes(count) + more
            begun = True
        header[22:27] = [0, 0, 0, 0, len(lengths)]
        header[22:26] = struct.pack("<I", _ogg_crc(bytes(header) + lengths + content))
        pages.append(bytes(header) + lengths + content)
    path.write_bytes(b"".join(pages))


def _ogg_crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        crc &= 0xFFFFFFFF
    return crc
