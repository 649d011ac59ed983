"""Values that can be decoded and that no model could use: in records of frames and of videos, and in score folders."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec, Level
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.dataset import Dataset, evaluation_batches, open_dataset
from topgb.records.disguised import check_bytes
from topgb.records.framing import frame_record
from topgb.records.inspect import inspect_shards
from topgb.records.teacher_scores import read_scores, write_scores
from topgb.records.verify import verify_shards

LEVELS: tuple[Level, ...] = ("frame", "video")


def _record(level: Level, values: np.ndarray, labels: list[int] | None, video: str = "v") -> bytes:
    if level == "video":
        return encode_example(video, {"x": values}, labels)
    return encode_sequence_example(video, {"x": np.stack([values, values])}, labels)


def _written(path: Path, records: list[bytes]) -> str:
    framed = b"".join(map(frame_record, records))
    path.write_bytes(gzip.compress(framed) if path.suffix == ".gz" else framed)
    return str(path)


def _opened(path: str, level: Level, dtype: str = "float32", size: int = 3) -> Dataset:
    spec = FeatureSpec(level, (Feature("x", size, dtype),))  # type: ignore[arg-type]
    return open_dataset(path, spec, 5, 300)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
@pytest.mark.parametrize("labels", [[-1], [0, -1], [3, -2]])
def test_negative_labels_are_no_classes(tmp_path, level, name, labels):
    path = _written(tmp_path / name, [_record(level, np.ones(3, np.float32), labels)])
    said = f"labels hold {min(labels)}, the number of no class"
    with pytest.raises(InputError, match=said):
        list(evaluation_batches(_opened(path, level), 4))
    assert said in str(verify_shards(path).unusable[0])
    found = inspect_shards(path)
    assert said in found.label_fault
    assert found.suggested_spec is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -2e15])
@pytest.mark.parametrize("first", [False, True])
def test_values_beyond_all_features_are_refused(tmp_path, level, value, first):
    """The square of 3e38 is infinite, and its frame divided by its length would be zeros."""
    values = np.float32([1, 2, 3])
    values[0 if first else 2] = value
    path = _written(tmp_path / "a.tfrecord", [_record(level, values, [1])])
    with pytest.raises(InputError, match=r"'x' holds values that are not finite, or beyond 1e\+15"):
        list(evaluation_batches(_opened(path, level), 4))
    assert "not finite, or beyond" in str(verify_shards(path).unusable[0])
    assert inspect_shards(path).unusable == 1


@pytest.mark.parametrize("level", LEVELS)
def test_an_empty_id_is_none(tmp_path, level):
    path = _written(tmp_path / "a.tfrecord", [_record(level, np.ones(3, np.float32), [1], "")])
    with pytest.raises(InputError, match="it has no id"):
        list(evaluation_batches(_opened(path, level), 4))
    assert "it has no id" in str(verify_shards(path).unusable[0])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "text", [b"https://a.org/watch?v=%08d", b"0123456789abcdef%08d\0\0", b"aGVsbG8gd29ybGQ/%08d+="]
)
def test_text_is_no_feature_to_train_on(tmp_path, level, text):
    values = [np.frombuffer(text % number, np.uint8) for number in range(20)]
    records = [_record(level, row, [1], f"v{number}") for number, row in enumerate(values)]
    path = _written(tmp_path / "a.tfrecord", records)
    with pytest.raises(InputError, match="feature 'x' of .* holds text"):
        check_bytes(_opened(path, level, "uint8", len(values[0])))


@pytest.mark.parametrize("level", LEVELS)
def test_bytes_in_a_narrow_range_are_no_text(tmp_path, level):
    random = np.random.default_rng(0)
    records = [_record(level, random.integers(95, 127, 32).astype(np.uint8), [1], f"v{n}") for n in range(20)]
    path = _written(tmp_path / "a.tfrecord", records)
    check_bytes(_opened(path, level, "uint8", 32))


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, lambda payload: b'{"id": 1}'])
def test_records_without_a_message_are_counted(tmp_path, pack):
    sound = _record("frame", np.ones(3, np.float32), [1])
    path = _written(tmp_path / "a.tfrecord", [sound, pack(sound), pack(sound)])
    assert inspect_shards(path).obstacles == [
        "2 of 3 records cannot be used: its CRC holds, but it is no Example or SequenceExample; write the records anew"
    ]


def test_a_class_twice_among_the_best_is_refused(tmp_path):
    """The second score would take the place of the first."""
    from topgb.tensors import load_tensors, save_tensors

    path = tmp_path / "a.safetensors"
    write_scores(path, [(["a", "b"], torch.rand(2, 5))], 5, 2)
    read_scores(path, 5, 2)
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}
    tensors["classes"][1] = tensors["classes"][1, 0]
    save_tensors(path, tensors)
    with pytest.raises(InputError, match="does not hold the scores that its folder promises"):
        read_scores(path, 5, 2)
