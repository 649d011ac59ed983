"""Where `topgb data inspect` prints no recipe it says why, and where it prints one, that recipe reads the records."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import topgb
from cli.program import topgb as program
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.framing import frame_record
from topgb.records.protos import SequenceExample

VIDEOS = 12
RECIPE = "a recipe that reads these records"
LEVELS = ("frame", "video")
NAMES = ("a.tfrecord", "a.tfrecord.gz")


def _fill(stored: Any, values: list) -> None:
    kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(values[0])]
    getattr(stored, kind).value.extend(values)


def _record(level: str, number: int, features: dict[str, list], labels: list[int] | None) -> bytes:
    """A record with two frames of each feature, or the feature of the video."""
    message = SequenceExample()
    message.context.feature["id"].bytes_list.value.append(b"v%d" % number)
    if labels is not None:
        message.context.feature["labels"].int64_list.value.extend(labels)
        message.context.feature["labels"].int64_list.SetInParent()
    for name, values in features.items():
        if level == "video":
            _fill(message.context.feature[name], values)
        else:
            for _ in range(2):
                _fill(message.feature_lists.feature_list[name].feature.add(), values)
    return message.SerializeToString()


def _numbers(kind: type, width: int, number: int) -> list:
    values = np.random.default_rng(number).integers(0, 256, width, np.uint8)
    return [values.tobytes()] if kind is bytes else (values / 7).tolist()


def _written(path: Path, records: list[bytes]) -> Path:
    framed = b"".join(map(frame_record, records))
    path.write_bytes(gzip.compress(framed) if path.suffix == ".gz" else framed)
    return path


def _inspected(path: Path):
    found, done = topgb.inspect(path, progress=False), program("data", "inspect", path)
    assert done.returncode == 0
    for obstacle in found.obstacles:
        assert f"in the way   {obstacle}" in done.stdout
    assert (RECIPE in done.stdout) == (found.suggested_spec is not None)
    if found.suggested_spec is None:
        assert found.obstacles or found.label_fault
    else:
        dataset = open_dataset(str(path), found.suggested_spec, found.suggested_classes or 1, 300)
        assert sum(len(batch) for batch in evaluation_batches(dataset, 4)) == VIDEOS
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [bytes, float])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ((7, 8), "'x' has from 7 to 8 values, and a recipe names one width"),
        ((6, 8), "'x' has from 6 to 8 values, and a recipe names one width"),
        ((16, 24), "'x' has from 16 to 24 values, all multiples of 8, like frames joined into one value"),
    ],
)
def test_widths_that_differ(tmp_path, level, kind, name, widths, said):
    records = [_record(level, n, {"x": _numbers(kind, widths[n % 2], n)}, [n % 3]) for n in range(VIDEOS)]
    found = _inspected(_written(tmp_path / name, records))
    assert found.suggested_spec is None
    (obstacle,) = found.obstacles
    assert obstacle.startswith(said)


@pytest.mark.parametrize("level", LEVELS)
def test_an_empty_value_is_another_width(tmp_path, level):
    records = [_record(level, n, {"x": [bytes(range(90, 90 + 8 * (n > 3)))]}, [n % 3]) for n in range(VIDEOS)]
    (obstacle,) = _inspected(_written(tmp_path / "a.tfrecord", records)).obstacles
    assert obstacle.startswith("'x' has from 0 to 8 values, and a recipe")


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_a_feature_of_some_records_only(tmp_path, level, beside):
    records = []
    for number in range(VIDEOS):
        features = {"x" if number % 4 else "y": _numbers(float, 8, number)}
        if beside:
            features["z"] = _numbers(float, 8, number)
        records.append(_record(level, number, features, [number % 3]))
    found = _inspected(_written(tmp_path / "a.tfrecord", records))
    assert [one.split(";")[0] for one in found.obstacles] == [
        "'x' is in 9 of 12 records only",
        "'y' is in 3 of 12 records only",
    ]
    spec = found.suggested_spec
    assert (spec and [feature.name for feature in spec.features]) == (["z"] if beside else None)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("features", "said"),
    [
        (
            lambda n: {"x": _numbers((bytes, float)[n % 2], 8, n)},
            "'x' holds values of several kinds (float32 and uint8)",
        ),
        (lambda n: {"x.mean": _numbers(float, 8, n)}, "'x.mean' cannot be named in a recipe: a name needs printable"),
        (lambda n: {"views": [n, 2]}, "no feature can be the input of a model ('views' holds integers)"),
        (lambda n: {"title": [b"a cat"]}, "no feature can be the input of a model ('title' holds text)"),
        (lambda n: {"label": [1.0, 0.0]}, "no feature can be the input of a model ('label' holds labels)"),
        (
            lambda n: {"title": [b"a cat"], "views": [n]},
            "no feature can be the input of a model ('title' holds text, 'views' holds integers)",
        ),
    ],
)
def test_records_without_a_feature_to_name(tmp_path, level, features, said):
    path = _written(tmp_path / "a.tfrecord", [_record(level, n, features(n), [n % 3]) for n in range(VIDEOS)])
    found = _inspected(path)
    assert found.suggested_spec is None
    assert [one[: len(said)] for one in found.obstacles] == [said]


def test_several_values_in_a_frame(tmp_path):
    records = [_record("frame", n, {"x": _numbers(bytes, 8, n) * 2}, [n % 3]) for n in range(VIDEOS)]
    found = _inspected(_written(tmp_path / "a.tfrecord", records))
    assert found.unusable == VIDEOS
    assert (
        "'x' holds several values in a frame; write one value for each, with all bytes of the frame" in found.obstacles
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("unlabelled", [1, 6, 11])
def test_labels_in_some_records_only(tmp_path, level, name, unlabelled):
    records = [
        _record(level, n, {"x": _numbers(float, 8, n)}, None if n < unlabelled else [n % 3]) for n in range(VIDEOS)
    ]
    found = _inspected(_written(tmp_path / name, records))
    assert found.suggested_spec is None
    (obstacle,) = found.obstacles
    assert obstacle.startswith(f"{unlabelled} of 12 records have no labels, and train and eval stop at such a record")
    # Each record is sound by itself.
    assert topgb.verify(tmp_path / name, progress=False).sound == VIDEOS


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("labels", [[1], [], None])
def test_labels_in_all_records_or_none(tmp_path, level, labels):
    records = [
        _record(level, n, {"x": _numbers(float, 8, n)}, labels if labels is None or n else [2]) for n in range(VIDEOS)
    ]
    if labels is None:
        records[0] = _record(level, 0, {"x": _numbers(float, 8, 0)}, None)
    found = _inspected(_written(tmp_path / "a.tfrecord", records))
    assert (found.obstacles, found.suggested_spec is None) == ([], False)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_lists_that_are_all_empty_teach_nothing(tmp_path, level, name):
    records = [_record(level, n, {"x": _numbers(float, 8, n)}, []) for n in range(VIDEOS)]
    found = _inspected(_written(tmp_path / name, records))
    (obstacle,) = found.obstacles
    assert obstacle.startswith("the label lists are all empty, so there is nothing for train to learn from")
    # Predicting, and learning from a teacher alone, take no labels.
    assert found.suggested_spec is not None


@pytest.mark.parametrize("labels", [[1], None, []])
def test_a_recipe_says_where_the_number_of_classes_is_to_be_given(tmp_path, labels):
    path = _written(tmp_path / "a.tfrecord", [_record("video", 0, {"x": _numbers(float, 8, 0)}, labels)])
    said = program("data", "inspect", path).stdout
    assert ("  classes: 2  # at least" in said) == bool(labels)
    assert ("  # classes: their number" in said) == (not labels)


@pytest.mark.parametrize("level", LEVELS)
def test_text_is_shown_as_text(tmp_path, level):
    features = {"x": _numbers(bytes, 8, 0), "title": [b"a cat and a dog"]}
    path = _written(tmp_path / "a.tfrecord", [_record(level, 0, features, [1])])
    said = program("data", "inspect", path).stdout
    assert "feature   title: text, width 15" in said
    assert "feature   x: uint8, width 8" in said


def test_lists_of_values_are_never_taken_for_one_value(tmp_path):
    """The number of byte strings in a list may be the width of a value, and their own widths any."""
    features = ({"x": _numbers(bytes, 16, 0)}, {"x": _numbers(bytes, 17, 1) * 16})
    records = [_record("video", number, one, [1]) for number, one in enumerate(features)]
    (obstacle,) = _inspected(_written(tmp_path / "a.tfrecord", records)).obstacles
    assert obstacle.startswith("'x' holds several values, like frames inside an Example")


def test_names_of_features_are_escaped_in_reasons(tmp_path):
    message = SequenceExample.FromString(_record("frame", 0, {"x\x1b[2J": _numbers(float, 4, 0)}, [1]))
    message.feature_lists.feature_list["y"].feature.add().float_list.value.append(1.0)
    path = _written(tmp_path / "a.tfrecord", [message.SerializeToString()])
    (error,) = topgb.verify(path, progress=False).unusable
    assert (error.reason.isprintable(), r"x\x1b[2J 2, y 1" in error.reason) == (True, True)
