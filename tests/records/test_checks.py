"""Verify and inspect: what they say of sound, odd and damaged files."""

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import frame_record
from topgb.records.inspect import inspect_shards
from topgb.records.shards import Shard, open_shard
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.records.verify import verify_shards


def test_sound_files(shards):
    seen = []
    found = verify_shards(shards(5, 3), lambda done, total: seen.append((done, total)))
    assert (found.files, found.sound, found.damaged, seen) == (2, 8, [], [(1, 2), (2, 2)])


def test_every_damaged_record_is_named(shards, damage, tmp_path):
    pattern = shards(6, 6, 6, 6)
    offsets = np.cumsum([0] + [len(frame_record(r)) for r in payloads(tmp_path / "part000.tfrecord")]).tolist()
    damage(tmp_path / "part000.tfrecord", offsets[2] + 20)
    damage(tmp_path / "part000.tfrecord", offsets[4] - 2)
    damage(tmp_path / "part001.tfrecord", 5)
    cut = (tmp_path / "part002.tfrecord").read_bytes()[:-1]
    (tmp_path / "part002.tfrecord").write_bytes(cut)
    (tmp_path / "part003.tfrecord").write_bytes(b"")
    found = verify_shards(pattern)
    told = [(error.path.rsplit("/", 1)[1], error.record, error.offset, error.reason) for error in found.damaged]
    assert told[0] == ("part000.tfrecord", 2, offsets[2], "its data does not match its CRC")
    assert told[1] == ("part000.tfrecord", 3, offsets[3], "its data does not match its CRC")
    assert told[2][:3] == ("part001.tfrecord", 0, 0)
    assert "length" in told[2][3]
    assert "cannot be reached" in told[2][3]
    assert told[3][:2] == ("part002.tfrecord", 5)
    assert "cut off" in told[3][3]
    assert told[4][:3] == ("part003.tfrecord", 0, 0)
    assert "empty" in told[4][3]
    assert (len(told), found.files, found.sound) == (5, 4, 4 + 0 + 5 + 0)


def payloads(path):
    opened = open_shard(Shard(str(path)))
    return [bytes(opened.data(record)) for record in range(len(opened))]


def sequence(rgb, audio, name="v"):
    values = {"rgb": np.zeros((rgb, 2), np.uint8), "audio": np.zeros((audio, 1), np.uint8)}
    return encode_sequence_example(name, values, [1])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff" * 9, "no Example or SequenceExample"),
        (sequence(2, 2).replace(b"\x02id", b"\x02ix"), "no id"),
        (sequence(0, 0), "no frames"),
        (encode_sequence_example("v", {}, [1]), "neither frames nor features"),
        (encode_example("v", {}, [1]), "neither frames nor features"),
        (encode_example("v", {"x": np.float32([1, np.nan])}, [1]), "'x' holds values that are not finite"),
        (encode_sequence_example("v", {"x": np.float32([[1, np.inf]])}, [1]), "'x' holds values that are not finite"),
        (sequence(3, 2), "unequal numbers of frames .audio 2, rgb 3."),
    ],
)
def test_records_that_make_no_sense(tmp_path, payload, reason):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame_record(sequence(2, 2)) + frame_record(payload))
    found = verify_shards(str(path))
    assert found.sound == 1
    with pytest.raises(InputError, match=f"record 1 .*{reason}"):
        raise found.unusable[0]
    assert not found.damaged


def test_odd_but_sound_records(tmp_path):
    path = tmp_path / "x.tfrecord"
    great = encode_example("v", {"x": np.full(9, 9e14, np.float32)}, [1])
    # YouTube-8M's own video-level records have the field of the feature lists, empty.
    payloads = [great, great + b"\x12\x00", sequence(2, 2).replace(b"\x0a\x01v", b"\x0a\x01\xff")]
    path.write_bytes(b"".join(map(frame_record, payloads)))
    found = verify_shards(str(path))
    assert (found.sound, found.damaged) == (3, [])
    assert inspect_shards(str(path)).id_keys == {"id": 3}


@pytest.mark.parametrize("counts", [(0, 2), (2, 0)])
def test_inspect_passes_over_lists_without_frames(tmp_path, counts):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(frame_record(sequence(count, count)) for count in counts))
    found = inspect_shards(str(path))
    assert [(f.name, f.kind, f.min_width, f.max_width, f.records) for f in found.features] == [
        ("audio", "uint8", 1, 1, 2),
        ("rgb", "uint8", 2, 2, 2),
    ]
    assert (found.min_frames, found.max_frames) == (0, 2)


def test_inspect_counts_the_width_of_empty_vectors(tmp_path):
    path = tmp_path / "x.tfrecord"
    nothing = encode_example("v", {"x": np.zeros(2, np.float32)}, []).replace(
        b"\x12\x0c\x12\x0a\x0a\x08", b"\x12\x0c\x22\x0a\x0a\x08"
    )
    path.write_bytes(b"".join(map(frame_record, [nothing, encode_example("v", {"x": np.zeros(2, np.float32)}, [])])))
    found = inspect_shards(str(path))
    (vector,) = found.features
    assert (vector.kind, vector.min_width, vector.max_width, found.suggested_spec) == ("float32", 0, 2, None)


def test_inspect_frame_level(shards):
    found = inspect_shards(shards(8, 8))
    assert (found.files, found.records, found.level, found.damaged) == (2, 16, "frame", [])
    assert (found.min_frames, found.max_frames) == (1, 7)
    assert found.id_keys == {"id": 16}
    assert (found.labelled, found.label_min, found.label_max, found.distinct_classes) == (16, 0, 4, 5)
    assert (found.labels_per_video, found.suggested_classes) == (1.0, 5)
    assert [(f.name, f.kind, f.min_width, f.max_width, f.records) for f in found.features] == [
        ("audio", "uint8", 3, 3, 16),
        ("rgb", "uint8", 6, 6, 16),
    ]
    assert found.suggested_spec == FeatureSpec("frame", (Feature("rgb", 6), Feature("audio", 3)))


def test_inspect_video_level(tmp_path):
    spec = FeatureSpec("video", (Feature("mean_rgb", 9, "float32"), Feature("mean_audio", 4, "float32")))
    write_synthetic(tmp_path, spec, 5, 6, SynthOptions(labelled=False, id_key="video_id"))
    found = inspect_shards(f"{tmp_path}/*")
    assert (found.level, found.records, found.labelled, found.suggested_classes) == ("video", 6, 0, None)
    assert found.id_keys == {"video_id": 6}
    assert found.suggested_spec == spec


def test_inspect_odd_files(tmp_path, shards):
    pattern = shards(2)
    vector = encode_example("a", {"mean": np.zeros(3, np.float32), "length": np.zeros(1, np.float32)}, [7])
    (tmp_path / "part900.tfrecord").write_bytes(frame_record(vector))
    (tmp_path / "part901.tfrecord").write_bytes(frame_record(encode_example("a", {}, None)) + b"rest")
    (tmp_path / "part902.tfrecord").write_bytes(b"")
    found = inspect_shards(pattern)
    assert (found.level, found.records, found.suggested_spec) == ("mixed", 4, None)
    assert len(found.damaged) == 2
    vectors = inspect_shards(f"{tmp_path}/part900*")
    assert [feature.name for feature in vectors.suggested_spec.features] == ["mean"]
    bare = inspect_shards(f"{tmp_path}/part901*")
    assert (bare.level, bare.suggested_spec) == ("unknown", None)
