"""`topgb data inspect` suggests a recipe only for records that it reads, and says what is in the way of others."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from cli.program import topgb
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import frame_record
from topgb.records.inspect import Inspection, inspect_shards
from topgb.records.protos import SequenceExample

VIDEOS = 12
RECIPE = "a recipe that reads these records"


def _put(features, key: str, values) -> None:
    """Add a feature to a `Features` message: byte strings, floats or integers."""
    stored = features.feature[key]
    if isinstance(values[0], bytes):
        stored.bytes_list.value.extend(values)
    elif isinstance(values[0], float):
        stored.float_list.value.extend(values)
    else:
        stored.int64_list.value.extend(values)


def _record(level: str, number: int, counts=(3,), context=(), omit: str | None = None) -> bytes:
    """A record with an id, a label and 8 numbers a frame; `counts` are frames of one feature after another."""
    numbers = np.random.default_rng(number)
    message = SequenceExample()
    for key, values in {"id": [b"v%03d" % number], "labels": [number % 3], **dict(context)}.items():
        if key != omit:
            _put(message.context, key, values)
    if level == "video":
        _put(message.context, "mean_rgb", numbers.normal(size=8).tolist())
    else:
        for place, count in enumerate(counts):
            frames = message.feature_lists.feature_list[f"f{place}"]
            frames.SetInParent()
            for _ in range(count):
                frames.feature.add().bytes_list.value.append(numbers.bytes(8))
    return message.SerializeToString()


def _inspect(tmp_path: Path, records: list[bytes], packed: bool = False) -> tuple[Inspection, str]:
    path = tmp_path / "x.tfrecord"
    raw = b"".join(map(frame_record, records))
    path.write_bytes(gzip.compress(raw) if packed else raw)
    done = topgb("data", "inspect", path)
    assert done.returncode == 0
    assert "damaged" not in done.stdout
    return inspect_shards(str(path)), done.stdout


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize(
    ("context", "inputs"),
    [
        ({"url": [b"https://example.org/watch?v=abc"]}, False),
        ({"title": ["Größe 7".encode()]}, False),
        ({"title": [b"a cat\n\tand a dog".ljust(32, b"\0")]}, False),
        ({"title": ["Größe und Länge".encode("latin-1")]}, False),
        ({"title": ["👩\u200d🚀 lifts off".encode()]}, False),
        ({"label": [1.0, 0.0, 0.0]}, False),
        ({"segment_scores": [1.0, 0.0]}, False),
        ({"segment_start_times": [5, 40]}, False),
        ({"thumbnail": [bytes(range(200, 216))]}, True),
        ({"thumbnail": [bytes(16)]}, True),
    ],
)
def test_only_inputs_are_suggested(level, packed, context, inputs, tmp_path):
    records = [_record(level, number, context=context.items()) for number in range(VIDEOS)]
    found, said = _inspect(tmp_path, records, packed)
    assert RECIPE in said
    assert not found.obstacles
    names = [feature.name for feature in found.suggested_spec.features]
    assert ("f0" if level == "frame" else "mean_rgb") in names
    # Of frame-level records a recipe reads frames alone.
    assert (set(context) <= set(names)) == (inputs and level == "video")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("level", "changes", "said"),
    [
        ("frame", {"omit": "id"}, "12 of 12 records cannot be used: it has no id"),
        ("video", {"omit": "id"}, "12 of 12 records cannot be used: it has no id"),
        ("frame", {"context": [("id", [7])]}, "12 of 12 records cannot be used: its id, under 'id', is an integer"),
        ("video", {"context": [("id", [7])]}, "12 of 12 records cannot be used: its id, under 'id', is an integer"),
        ("frame", {"counts": (3, 4)}, "12 of 12 records cannot be used: .* unequal numbers of frames .f0 3, f1 4."),
        ("frame", {"counts": (0,)}, "12 of 12 records cannot be used: it has no frames"),
    ],
)
def test_unusable_records_get_no_recipe_but_the_reason(level, changes, said, packed, tmp_path):
    found, printed = _inspect(tmp_path, [_record(level, number, **changes) for number in range(VIDEOS)], packed)
    assert RECIPE not in printed
    assert found.suggested_spec is None
    assert found.unusable == VIDEOS
    (obstacle,) = found.obstacles
    assert re.match(said, obstacle)
    done = topgb("data", "verify", tmp_path / "x.tfrecord")
    assert done.returncode == 1
    assert f"0 sound records, 0 damaged, {VIDEOS} unusable" in done.stdout


@pytest.mark.parametrize("kind", ["floats", "byte strings", "one byte string"])
def test_frames_joined_into_one_value_are_told(kind, tmp_path):
    records = []
    for number in range(VIDEOS):
        frames = 3 + number % 4
        message = SequenceExample()
        _put(message.context, "id", [b"v%03d" % number])
        if kind == "floats":
            _put(message.context, "rgb", [0.5] * (8 * frames))
        elif kind == "byte strings":
            _put(message.context, "rgb", [bytes(range(128, 136))] * frames)
        else:
            frame = message.feature_lists.feature_list["rgb"].feature.add()
            frame.bytes_list.value.append(bytes(range(128, 136)) * frames)
        records.append(message.SerializeToString())
    found, printed = _inspect(tmp_path, records)
    assert RECIPE not in printed
    assert found.unusable == 0
    (obstacle,) = found.obstacles
    assert "topgb reads frames from a SequenceExample" in obstacle
    assert "multiples of 8" in obstacle or "several values" in obstacle


def test_a_few_unusable_records_are_enough(tmp_path):
    records = [_record("frame", number, counts=(3, 3 + (number == 5))) for number in range(VIDEOS)]
    found, printed = _inspect(tmp_path, records)
    assert found.obstacles == [
        "1 of 12 records cannot be used: its features have unequal numbers of frames (f0 3, f1 4); cut them to the "
        "same number"
    ]
    assert RECIPE not in printed


@pytest.mark.parametrize("level", ["frame", "video"])
def test_another_key_of_the_labels_is_named(level, tmp_path):
    records = [_record(level, number, context=[("label", [number % 3])], omit="labels") for number in range(VIDEOS)]
    found, printed = _inspect(tmp_path, records)
    assert found.labelled == 0
    assert "topgb reads the key 'labels'; integers are here under 'label'" in printed


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize("kind", ["int64_list", "float_list", "bytes_list"])
def test_an_empty_list_of_any_kind_is_empty(level, kind, tmp_path):
    records = []
    for number in range(VIDEOS):
        message = SequenceExample.FromString(_record(level, number, omit="labels" if number % 2 else None))
        if number % 2:
            getattr(message.context.feature["labels"], kind).SetInParent()
        records.append(message.SerializeToString())
    found, printed = _inspect(tmp_path, records)
    assert (found.labelled, found.empty_labels, found.bad_labels) == (VIDEOS, VIDEOS // 2, 0)
    assert "labels    in 12 of 12 records, 6 of them empty" in printed
    assert RECIPE in printed


def test_the_case_text_as_feature(cases):
    for name in ("url.tfrecord", "u1.tfrecord", "u2.tfrecord"):
        found = inspect_shards(str(cases / "text-as-feature" / name))
        assert found.suggested_spec is not None
        assert "url" not in [feature.name for feature in found.suggested_spec.features]


@pytest.mark.parametrize("case", ["unequal-frames", "vggish-no-context"])
def test_cases_that_no_recipe_reads(case, cases):
    done = topgb("data", "inspect", cases / case / "a.tfrecord")
    assert RECIPE not in done.stdout
    assert "cannot be used" in done.stdout
    assert "damaged" not in done.stdout
    verified = topgb("data", "verify", cases / case / "a.tfrecord")
    assert verified.returncode == 1
    assert "download the file again" not in verified.stdout
    assert " 0 damaged" in verified.stdout


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["float_list", "bytes_list"])
def test_frames_without_any_context_have_no_id(kind, packed, tmp_path):
    """The siblings of vggish-no-context: other dtypes, two features, gzipped."""
    records = []
    for number in range(VIDEOS):
        message = SequenceExample.FromString(_record("frame", number, counts=(3, 3)))
        message.ClearField("context")
        for frames in message.feature_lists.feature_list.values() if kind == "float_list" else ():
            for frame in frames.feature:
                frame.float_list.value.extend(map(float, frame.bytes_list.value.pop()))
        records.append(message.SerializeToString())
    found, printed = _inspect(tmp_path, records, packed)
    assert RECIPE not in printed
    assert found.unusable == VIDEOS
    assert "12 of 12 records cannot be used: it has no id" in printed
    verified = topgb("data", "verify", tmp_path / "x.tfrecord")
    assert verified.returncode == 1
    assert "0 sound records, 0 damaged, 12 unusable" in verified.stdout


def test_the_case_segments(cases):
    found = inspect_shards(str(cases / "segments-2019/validate00.tfrecord"))
    assert (found.segments.records, found.segments.segments, found.segments.ratings) == (12, 24, 24)
    assert found.segments.positive == 16
    assert not found.obstacles
    assert not any(feature.name.startswith("segment_") for feature in found.suggested_spec.features)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("level", ["frame", "video"])
def test_labels_of_segments_without_scores_are_told_not_to_count(level, packed, tmp_path):
    context = {"segment_labels": [3, 5], "segment_start_times": [5, 40]}
    records = [_record(level, number, context=context.items()) for number in range(VIDEOS)]
    _, said = _inspect(tmp_path, records, packed)
    assert "'segment_labels', but not rated" in said
    _, said = _inspect(tmp_path, [_record(level, number) for number in range(VIDEOS)], packed)
    assert "segments" not in said


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_feature_that_never_changes_is_told(level, suffix, dtype, tmp_path):
    generator = np.random.default_rng(0)
    framed = []
    for number in range(12):
        shape = (1 + number % 3, 4) if level == "frame" else (4,)
        values = {"x": generator.integers(0, 9, shape).astype(dtype), "silence": np.zeros(shape, dtype)}
        encode = encode_sequence_example if level == "frame" else encode_example
        framed.append(frame_record(encode(f"v{number}", values, [number % 3])))
    path = tmp_path / f"a.tfrecord{suffix}"
    path.write_bytes((gzip.compress if suffix else bytes)(b"".join(framed)))
    assert {feature.name: feature.constant for feature in inspect_shards(str(path)).features} == {
        "silence": True,
        "x": False,
    }
    printed = topgb("data", "inspect", path).stdout
    assert f"silence: {np.dtype(dtype).name}, width 4, the same value in all" in printed
    assert printed.count("the same value") == 1
