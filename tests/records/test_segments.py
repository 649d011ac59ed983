"""Ratings of segments: read as stored, refused in words where they make no sense, and made to be learned."""

import numpy as np
import pytest

from topgb.errors import UnfitRecordError
from topgb.features import Feature, FeatureSpec
from topgb.records.framing import Place
from topgb.records.inspect import inspect_shards
from topgb.records.protobuf_decoding import parse_record
from topgb.records.protos import Features
from topgb.records.segments import Ratings, rating_entries, read_ratings
from topgb.records.shards import find_shards, open_shard
from topgb.records.synth import SynthOptions, make_world, write_synthetic
from topgb.records.verify import verify_shards

SPEC = FeatureSpec("frame", (Feature("rgb", 24), Feature("audio", 8)))
PLACE = Place("x.tfrecord", 0, 0)


def _context(**lists):
    message = Features()
    for key, values in lists.items():
        kind = "float_list" if isinstance(values[0], float) else "int64_list"
        getattr(message.feature[key], kind).value.extend(values)
    return message


def _rated(starts=(10, 40), ends=(15, 45), labels=(2, 2), scores=(1.0, 0.0)):
    keys = ("segment_start_times", "segment_end_times", "segment_labels", "segment_scores")
    return _context(**{key: list(values) for key, values in zip(keys, (starts, ends, labels, scores), strict=True)})


def test_ratings_are_read_as_stored():
    found = read_ratings(_rated(), PLACE, 3)
    assert found.starts.tolist() == [10, 40]
    assert found.classes.tolist() == [2, 2]
    assert found.positive.tolist() == [True, False]
    assert read_ratings(_context(labels=[1]), PLACE, 3) is None


def test_what_is_encoded_is_read_again():
    ratings = Ratings(np.array([0, 5, 5]), np.array([7, 7, 1]), np.array([True, False, True]))
    message = Features()
    message.ParseFromString(rating_entries(ratings))
    found = read_ratings(message, PLACE)
    assert [one.tolist() for one in found] == [one.tolist() for one in ratings]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": [1.0]}, "lists of unequal length"),
        ({"ends": [15, 46]}, "from 40 to 46"),
        ({"starts": [-5, 40], "ends": [0, 45]}, "from -5 to 0"),
        ({"starts": [2**62, 40], "ends": [2**62 + 5, 45]}, "it rates a segment from"),
        ({"labels": [2, 3]}, "for 3, which is not one of the 3 classes"),
        ({"labels": [-1, 2]}, "for -1"),
        ({"scores": [1.0, 1.5]}, "not from 0 to 1"),
        ({"scores": [float("nan"), 1.0]}, "not from 0 to 1"),
        ({"starts": [10, 10], "ends": [15, 15]}, "both ways"),
        ({"labels": [2.0, 1.0]}, "'segment_labels' does not hold integers"),
    ],
)
def test_senseless_ratings_are_refused(change, said):
    with pytest.raises(UnfitRecordError, match=said):
        read_ratings(_rated(**change), PLACE, 3)


def test_synthetic_segments_show_their_classes(tmp_path):
    options = SynthOptions(frames=(40, 60), noise=0.2, segments=5)
    (path,) = write_synthetic(tmp_path / "a", SPEC, 10, 60, options)
    (again,) = write_synthetic(tmp_path / "b", SPEC, 10, 60, options)
    assert path.read_bytes() == again.read_bytes()
    for found in (inspect_shards(str(path)).segments, verify_shards(str(path)).segments):
        assert (found.records, found.segments, found.ratings) == (60, 300, 300)
        assert 60 < found.positive < 200
    world = make_world(SPEC.width, 10, 0)
    shown = sum(
        weight[None] * world.prototypes[:, causes] for causes, weight in zip(world.causes, world.weights, strict=True)
    )
    opened = open_shard(find_shards(str(path))[0])
    similar = {True: [], False: []}
    for record in range(len(opened)):
        message = parse_record(opened.data(record), opened.place(record))
        ratings = read_ratings(message.context, opened.place(record), 10)
        labels = set(message.context.feature["labels"].int64_list.value)
        rows = message.feature_lists.feature_list["rgb"].feature
        frames = np.stack([np.frombuffer(row.bytes_list.value[0], np.uint8) for row in rows]).astype(float)
        for start, number, positive in zip(*ratings, strict=True):
            assert not positive or number in labels
            assert start % 5 == 0
            assert start + 5 <= len(frames)
            contrast = frames[start : start + 5].mean(0) - frames.mean(0)
            similar[bool(positive)].append(contrast @ shown[number, :24])
    # The class's own direction stands out where it shows, over the video's mean.
    assert np.mean(similar[True]) > 3 * np.mean(similar[False])
    assert np.mean(np.array(similar[True]) > 0) > 0.8


def test_bad_ratings_keep_no_one_from_the_labels_of_videos(tmp_path):
    from topgb.records.codec import encode_sequence_example
    from topgb.records.framing import write_record

    features = {"rgb": np.zeros((9, 24), np.uint8), "audio": np.zeros((9, 8), np.uint8)}
    with (tmp_path / "x.tfrecord").open("wb") as file:
        more = _rated(scores=[1.0]).SerializeToString()
        write_record(file, encode_sequence_example("a", features, [1], more=more))
    found = inspect_shards(str(tmp_path / "x.tfrecord"))
    assert found.suggested_spec is not None
    assert "the ratings of segments in 1 records cannot be used" in found.obstacles[0]
    verified = verify_shards(str(tmp_path / "x.tfrecord"))
    assert "unequal length" in verified.unusable[0].reason
