"""Floats that were written as their bytes, and arrays in file formats, are no features of bytes."""

import gzip
import io
import pickle

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.dataset import open_dataset
from topgb.records.disguised import check_bytes, disguise_of
from topgb.records.framing import frame_record
from topgb.records.inspect import inspect_shards

RANDOM = np.random.default_rng(0)


def _saved(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


DISGUISED = {
    "float32": lambda: RANDOM.normal(size=32).astype(np.float32).tobytes(),
    "float64": lambda: RANDOM.normal(size=32).tobytes(),
    "float16": lambda: RANDOM.normal(size=32).astype(np.float16).tobytes(),
    "small": lambda: (0.01 * RANDOM.normal(size=32)).astype(np.float32).tobytes(),
    "rectified": lambda: np.maximum(RANDOM.normal(size=32), 0).astype(np.float32).tobytes(),
    "npy": lambda: _saved(RANDOM.normal(size=32)),
    "pickle": lambda: pickle.dumps(RANDOM.normal(size=32)),
    "tensor": lambda: b"\x08\x01\x12\x04\x12\x02\x08\x20\x22\x80\x01" + RANDOM.bytes(128),
}


def _quantised(scale: float, shift: float = 0.0) -> bytes:
    values = np.clip(RANDOM.normal(size=1024) * scale + shift, -2, 2)
    return np.floor((values + 2) * 255 / 4).astype(np.uint8).tobytes()


@pytest.mark.parametrize("kind", DISGUISED)
@pytest.mark.parametrize("level", ["frame", "video"])
def test_they_are_named_and_not_suggested(tmp_path, kind, level):
    values = [[np.frombuffer(DISGUISED[kind](), np.uint8) for _ in range(4)] for _ in range(20)]
    if level == "frame":
        records = [encode_sequence_example(f"v{n}", {"rgb": np.stack(rows)}, [0]) for n, rows in enumerate(values)]
        path, pack = tmp_path / "a.tfrecord", bytes
    else:
        records = [encode_example(f"v{n}", {"rgb": rows[0]}, [0]) for n, rows in enumerate(values)]
        path, pack = tmp_path / "a.tfrecord.gz", gzip.compress
    path.write_bytes(pack(b"".join(map(frame_record, records))))
    found = inspect_shards(str(path))
    assert found.suggested_spec is None
    assert "'rgb' holds bytes, but " in found.obstacles[0]
    spec = FeatureSpec(level, (Feature("rgb", len(values[0][0])),))
    with pytest.raises(InputError, match="feature 'rgb' of .* holds bytes, but .*write the values as a float"):
        check_bytes(open_dataset(str(path), spec, 1, 300))


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("shift", [-1.5, -0.9, 0.0, 1.0])
def test_bytes_of_one_number_each_are_not_named(scale, shift):
    assert disguise_of([_quantised(scale, shift) for _ in range(60)]) is None


@pytest.mark.parametrize("values", [[], [b""], [bytes(64)] * 9, [b"\x30\x31\x32\x40"] * 99, [RANDOM.bytes(64)]])
def test_what_tells_nothing_is_not_named(values):
    assert disguise_of(values) is None
