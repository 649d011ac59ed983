"""Labels and a teacher's predictions that training refuses: verify and inspect refuse them too, and say where."""

import gzip
from pathlib import Path

import numpy as np
import pytest

import topgb
from cli.program import topgb as program
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec, Level
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.framing import frame_record
from topgb.records.labels import Targets, TeacherSource
from topgb.records.protos import Features, SequenceExample

LEVELS: tuple[Level, ...] = ("frame", "video")
NAMES = ("a.tfrecord", "a.tfrecord.gz")
BAD, VIDEOS, CLASSES = 7, 12, 5
Scores = np.ndarray | list[int] | list[bytes] | None


def _record(level: Level, number: int, labels: list[int] | None, scores: Scores = None) -> bytes:
    values = np.random.default_rng(number).normal(size=(2, 8)).astype(np.float32)
    predictions = scores if isinstance(scores, np.ndarray) else None
    if level == "video":
        payload = encode_example(f"v{number}", {"x": values[0]}, labels, predictions=predictions)
    else:
        payload = encode_sequence_example(f"v{number}", {"x": values}, labels, predictions=predictions)
    if not isinstance(scores, list):
        return payload
    message, added = SequenceExample.FromString(payload), Features()
    stored = added.feature["predictions"]
    if isinstance(scores[0], int):
        stored.int64_list.value.extend(scores)
    else:
        stored.bytes_list.value.extend(scores)
    message.context.MergeFrom(added)
    return message.SerializeToString()


def _written(path: Path, records: list[bytes]) -> Path:
    framed = b"".join(map(frame_record, records))
    path.write_bytes(gzip.compress(framed) if path.suffix == ".gz" else framed)
    return path


def _read(path: Path, level: Level, teacher: TeacherSource | None) -> None:
    """Read every record as training does."""
    spec = FeatureSpec(level, (Feature("x", 8, "float32"),))
    list(evaluation_batches(open_dataset(str(path), spec, CLASSES, 300, targets=Targets(teacher=teacher)), 4))


def _refusal(path: Path, level: Level, teacher: TeacherSource | None = None) -> str:
    with pytest.raises(InputError) as caught:
        _read(path, level, teacher)
    return str(caught.value)


def _sound() -> np.ndarray:
    return np.linspace(0, 1, CLASSES, dtype=np.float32)


def _with(value: float) -> np.ndarray:
    scores = _sound()
    scores[2] = value
    return scores


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (_with(np.nan), "'predictions' are not all from 0 to 1 (nan for class 2)"),
        (_with(np.inf), "'predictions' are not all from 0 to 1 (inf for class 2)"),
        (_with(-np.inf), "'predictions' are not all from 0 to 1 (-inf for class 2)"),
        (_with(3.5), "'predictions' are not all from 0 to 1 (3.5 for class 2)"),
        (_with(-0.25), "'predictions' are not all from 0 to 1 (-0.25 for class 2)"),
        ([0, 1, 0, 0, 0], "'predictions' hold integers, not floats"),
        ([b"0.5"], "'predictions' hold bytes, not floats"),
    ],
)
def test_predictions_that_are_no_probabilities(tmp_path, level, name, scores, said):
    records = [_record(level, n, [n % CLASSES], scores if n == BAD else _sound()) for n in range(VIDEOS)]
    path = _written(tmp_path / name, records)
    place = f"{path}: record {BAD} at byte {sum(len(frame_record(record)) for record in records[:BAD])}"
    assert _refusal(path, level, "records").startswith(f"{place}: {said}")
    found = topgb.verify(path, progress=False)
    (error,) = found.unusable
    assert (found.sound, found.damaged, str(error)[: len(place)]) == (VIDEOS - 1, [], place)
    assert said in error.reason
    done = program("data", "verify", path)
    assert done.returncode == 1
    assert f"{place}: {said}" in done.stdout
    assert " 11 sound records, 0 damaged, 1 unusable" in done.stdout
    # Without the teacher, these records can be trained on.
    _read(path, level, None)
    inspected = topgb.inspect(path, progress=False)
    assert inspected.suggested_spec is not None
    (obstacle,) = inspected.obstacles
    assert obstacle.startswith(
        f"1 of 12 records hold predictions that cannot be used, the first of them in {place}: {said}"
    )
    assert obstacle in program("data", "inspect", path).stdout


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("label", [2**31 - 1, 2**31, 2**40, 2**63 - 1])
@pytest.mark.parametrize("name", NAMES)
def test_labels_beyond_every_model(tmp_path, level, label, name):
    path = _written(tmp_path / name, [_record(level, n, [1, label] if n == BAD else [n % 5]) for n in range(VIDEOS)])
    assert f"record {BAD} " in _refusal(path, level)
    assert f"label {label} is outside the 5 classes" in _refusal(path, level)
    (error,) = topgb.verify(path, progress=False).unusable
    said = f"label {label} is outside the classes that a model can have (0 to 2,147,483,646)"
    assert (error.record, said in error.reason) == (BAD, True)
    done = program("data", "verify", path)
    assert (done.returncode, said in done.stdout) == (1, True)
    inspected = topgb.inspect(path, progress=False)
    assert (inspected.suggested_spec, inspected.bad_labels, inspected.label_max) == (None, 1, 4)
    shown = program("data", "inspect", path).stdout
    assert f"unusable in 1 records: {said}" in shown
    assert "a recipe" not in shown


@pytest.mark.parametrize("level", LEVELS)
def test_the_greatest_label_of_a_model_is_sound(tmp_path, level):
    path = _written(tmp_path / "a.tfrecord", [_record(level, 0, [2**31 - 2], _sound())])
    assert topgb.verify(path, progress=False).unusable == []
    assert topgb.inspect(path, progress=False).suggested_classes == 2**31 - 1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("predictions", "labels", "said"),
    [
        (lambda n: _sound()[: 4 + n % 2], [1], "the records hold from 4 to 5 predictions of a teacher"),
        (lambda n: _sound() if n % 3 else None, [1], "8 of 12 records hold predictions of a teacher"),
        (lambda n: _sound(), [5], "the records hold 5 predictions of a teacher each, and labels up to 5;"),
    ],
)
def test_predictions_that_teach_no_student(tmp_path, level, predictions, labels, said):
    path = _written(tmp_path / "a.tfrecord", [_record(level, n, labels, predictions(n)) for n in range(VIDEOS)])
    _refusal(path, level, "records")
    # Each record is sound by itself.
    assert topgb.verify(path, progress=False).unusable == []
    (obstacle,) = topgb.inspect(path, progress=False).obstacles
    assert obstacle.startswith(said)
    assert "teacher='records'" in obstacle
    assert "--teacher records" in program("data", "inspect", path).stdout


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("labels", [[1], None])
def test_sound_predictions_give_the_number_of_classes(tmp_path, level, labels):
    path = _written(tmp_path / "a.tfrecord", [_record(level, n, labels, _sound()) for n in range(VIDEOS)])
    found = topgb.inspect(path, progress=False)
    assert (found.obstacles, found.suggested_classes) == ([], CLASSES)
    assert topgb.verify(path, progress=False).sound == VIDEOS


@pytest.mark.parametrize("other", ["sound", "uneven", None])
def test_a_record_without_one_feature_of_like_frames_is_unusable(tmp_path, other):
    """A feature of uneven frames may be text, which a recipe leaves out; if all are, no recipe reads the record."""
    message = SequenceExample.FromString(_record("frame", 0, [1]))
    message.feature_lists.feature_list["x"].feature[1].float_list.value.append(1.0)
    if other is not None:
        for number in range(2):
            value = bytes(8 + number * (other == "uneven"))
            message.feature_lists.feature_list["y"].feature.add().bytes_list.value.append(value)
    path = _written(tmp_path / "a.tfrecord", [message.SerializeToString()])
    said = "the frames of feature 'x' have unequal widths (8, 9); write all frames alike"
    assert said in _refusal(path, "frame")
    assert [error.reason for error in topgb.verify(path, progress=False).unusable] == (
        [said] if other != "sound" else []
    )
