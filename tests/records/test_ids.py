"""The ids of records, whatever features these hold."""

import numpy as np
import pytest

from topgb.errors import DamagedRecordError
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import frame_record
from topgb.records.ids import video_ids


def _write(path, *payloads):
    path.write_bytes(b"".join(map(frame_record, payloads)))
    return str(path)


def test_any_level_and_any_feature(tmp_path):
    video = encode_example("one", {"x": np.float32([1, 2])}, [5])
    pattern = _write(
        tmp_path / "a.tfrecord",
        video,
        # YouTube-8M's own video-level records have the field of the feature lists, empty.
        video.replace(b"one", b"two") + b"\x12\x00",
        encode_sequence_example("ä,\n", {"y": np.zeros((3, 4), np.uint8)}, None, id_key="video_id"),
        encode_sequence_example("one", {}, None),
    )
    _write(tmp_path / "b.tfrecord", video.replace(b"one", b"six"))
    seen = []
    found = video_ids(f"{pattern},{tmp_path}/b*", on_progress=lambda done, total: seen.append((done, total)))
    assert list(found) == ["one", "two", "ä,\n", "one", "six"]
    assert seen == [(1, 2), (2, 2)]


def test_damage(shards, damage, tmp_path):
    pattern = shards(4, 4, 4)
    damage(tmp_path / "part000.tfrecord", -6)
    damage(tmp_path / "part001.tfrecord", 16)
    (tmp_path / "part002.tfrecord").write_bytes((tmp_path / "part002.tfrecord").read_bytes()[:-1])
    with pytest.raises(DamagedRecordError, match="part001.*record 0 .*does not match its CRC"):
        list(video_ids(pattern))
    damaged = []
    # A frame's CRC does not matter to an id.
    assert list(video_ids(pattern, "skip", damaged)) == [f"v{number}" for number in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10)]
    assert [(error.path[-16:], error.record) for error in damaged] == [("part001.tfrecord", 0), ("part002.tfrecord", 3)]
    assert "cut off" in damaged[1].reason
