"""Files of one SequenceExample each, as MediaPipe's extractor writes, are packed into records."""

from pathlib import Path

import numpy as np
import pytest

from cli.program import topgb
from topgb.errors import InputError
from topgb.packing.messages import read_message
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.description import read_description
from topgb.records.framing import frame_record
from topgb.records.labels import Targets
from topgb.records.protos import SequenceExample


def _message(number: int, lists: dict[str, np.ndarray]) -> bytes:
    message = SequenceExample()
    for key, values in lists.items():
        frames = message.feature_lists.feature_list[key]
        for row in values:
            if values.dtype == np.uint8:
                frames.feature.add().bytes_list.value.append(row.tobytes())
            elif values.dtype == np.int64:
                frames.feature.add().int64_list.value.append(int(row))
            else:
                frames.feature.add().float_list.value.extend(row.tolist())
    return message.SerializeToString()


def _mediapipe(number: int, picture: int = 50, sound: int = 51) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(number)
    return {
        "RGB/feature/floats": numbers.normal(size=(picture, 16)).astype(np.float32),
        "RGB/feature/timestamp": np.arange(picture) * 1_000_000,
        "AUDIO/feature/floats": numbers.normal(size=(sound, 4)).astype(np.float32),
        "AUDIO/feature/timestamp": np.arange(sound) * 1_000_000,
    }


@pytest.mark.parametrize("ending", [".pb", ".tfrecord"])
def test_mediapipes_features_become_records(ending, tmp_path):
    source, out = tmp_path / "features", tmp_path / "packed"
    source.mkdir()
    for number in range(4):
        (source / f"clip{number}{ending}").write_bytes(_message(number, _mediapipe(number)))
    done = topgb("data", "pack", source, "--out", out, "--store", "float32")
    assert done.returncode == 0, done.stderr
    spec = read_description(out / "dataset.yaml").spec
    assert [(feature.name, feature.size) for feature in spec.features] == [("rgb", 16), ("audio", 4)]
    data = open_dataset(f"{out}/train*.tfrecord", spec, 1, 300, targets=Targets(False))
    (batch,) = evaluation_batches(data, 8)
    found = dict(zip(batch.ids, batch.features.numpy(), strict=True))
    assert sorted(found) == [f"clip{number}" for number in range(4)]
    for number in range(4):
        wanted = _mediapipe(number)
        joined = np.concatenate([wanted["RGB/feature/floats"], wanted["AUDIO/feature/floats"][:50]], axis=1)
        np.testing.assert_array_equal(found[f"clip{number}"], joined)


def test_packed_records_beside_the_features_are_left_alone(tmp_path):
    (tmp_path / "a.pb").write_bytes(_message(0, _mediapipe(0)))
    for _ in range(2):
        done = topgb("data", "pack", tmp_path, "--out", tmp_path, "--force")
        assert done.returncode == 0, done.stderr


def test_bytes_are_stored_bytes(tmp_path):
    path = tmp_path / "v.pb"
    codes = np.random.default_rng(0).integers(0, 256, (3, 8), dtype=np.uint8)
    path.write_bytes(_message(0, {"image": codes}))
    video = read_message(str(path))
    assert video.id == "v"
    np.testing.assert_array_equal(video.features["image"], codes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_message(0, _mediapipe(0, 50, 53)), "unequal numbers of frames"),
        (_message(0, {"RGB/feature/timestamp": np.arange(3)}), "holds no feature lists of floats or bytes"),
        (b"", "holds no feature lists"),
        (b"\xff" * 40, "is no SequenceExample"),
        (frame_record(_message(0, _mediapipe(0))), "is a TFRecord already"),
        (
            _message(0, {"rgb": np.zeros((2, 3), np.float32), "RGB/feature/floats": np.zeros((2, 3), np.float32)}),
            "twice",
        ),
        (_message(0, {"rgb": np.full((2, 3), np.nan, np.float32)}), "not finite"),
        (_message(0, {"a.b": np.zeros((2, 3), np.float32)}), "no dot"),
    ],
)
def test_other_files_get_a_sentence(content, said, tmp_path):
    path: Path = tmp_path / "v.pb"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_message(str(path))
    assert str(path) in str(caught.value)
