"""Lengths in model files are compared with what the file has before anything of that length is made."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import topgb
from fuzz.bombs import zlib_bomb
from fuzz.hostile import HUGE, needs_limits, refused
from fuzz.limits import limited
from fuzz.modelfile_bases import Base, Stored, file_bytes, joined, make_bases

pytestmark = needs_limits


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> list[Base]:
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "huge.safetensors"


def _write(path: Path, header: dict, tensors: dict[str, Stored]) -> int:
    outer, data = joined(json.dumps(header), tensors)
    return path.write_bytes(len(outer).to_bytes(8, "little") + outer + data)


@pytest.mark.parametrize("length", [10**8, 10**8 - 9, *HUGE])
def test_a_model_file_with_a_huge_header(length, path, bases):
    raw = file_bytes(bases[0])
    path.write_bytes(struct.pack("<Q", length) + raw[8:])
    refused(lambda: topgb.load(path), len(raw), "is cut off|not a safetensors file")


SHAPES = [[2**31, 2**31], [2**32, 2**32], [2**63], [2**64 - 1], [2**40], [2**62, 4], [3, 2**62]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("whole", [False, True])
def test_a_tensor_of_a_huge_shape(shape, whole, path, bases):
    name, stored = next(iter(bases[0].tensors.items()))
    header = json.loads(bases[0].header)
    if whole:
        header["tensors"][name]["shape"] = shape
    size = _write(path, header, {**bases[0].tensors, name: Stored(stored.dtype, shape, stored.data)})
    refused(lambda: topgb.load(path), size, "huge.safetensors")


@pytest.mark.parametrize(
    "shape", [[0, 2**63], [2**64 - 1, 0], [0, 2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1]], ids=str
)
def test_an_empty_tensor_of_a_huge_shape(shape, path, bases):
    for base in bases[:7]:
        header = json.loads(base.header)
        name = next(name for name, entry in header["tensors"].items() if len(entry["shape"]) == 2)
        header["tensors"][name]["shape"] = shape
        tensors = dict(base.tensors)
        for part in [part for part in tensors if part.startswith(name)]:
            tensors[part] = Stored(tensors[part].dtype, [0] if part.endswith("s") and "." in part[-8:] else shape, b"")
        if name + ".codebook" in tensors:
            tensors[name + ".codes"] = Stored("U8", shape, b"")
        refused(lambda: topgb.load(path), _write(path, header, tensors))


@pytest.mark.parametrize(
    "offsets", [[0, 2**64 - 1], [2**63, 2**63 + 4], [0, 2**40], [4, 0], [2**64 - 4, 2**64]], ids=str
)
def test_a_tensor_at_huge_offsets(offsets, path, bases):
    header, data = joined(bases[0].header, bases[0].tensors)
    entries = json.loads(header)
    entries[next(iter(bases[0].tensors))]["data_offsets"] = offsets
    text = json.dumps(entries).encode()
    size = path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    refused(lambda: topgb.load(path), size, "is cut off|not a safetensors file")


SIZES = [
    *[("classes", size) for size in (2**20, 2**31 - 1, 2**62)],
    *[("features.features.0.size", size) for size in (2**20, 2**31 - 1, 2**62)],
    *[("members.0.model.mixture", size) for size in (100, 101)],
]


@pytest.mark.parametrize(("key", "size"), SIZES)
def test_a_huge_size_in_the_header(key, size, path, bases):
    header = json.loads(bases[0].header)
    _set(header, key, size)
    header["class_names"] = None
    refused(lambda: topgb.load(path), _write(path, header, bases[0].tensors), "huge.safetensors")


@pytest.mark.parametrize("key", ["layers", "width", "heads", "embedding", "candidates"])
@pytest.mark.parametrize("size", [10**6, 2**31 - 1, 2**62])
def test_a_huge_second_stage(key, size, path, bases):
    base = next(base for base in bases if '"reranker":{' in base.header)
    header = json.loads(base.header)
    header["reranker"][key] = size
    if key in ("width", "heads"):
        header["reranker"] |= {"width": size, "heads": size}
    if key == "candidates":
        # No more than there are classes.
        _write(path, header, base.tensors)
        topgb.load(path)
        return
    refused(lambda: topgb.load(path), _write(path, header, base.tensors), "second stage")


def test_many_layers_of_many_models(path, bases):
    base = next(base for base in bases if '"lstm"' in base.header)
    header = json.loads(base.header)
    header["members"][0]["model"] |= {"layers": 100, "mixture": 100}
    refused(lambda: topgb.load(path), _write(path, header, base.tensors), "member 0: the sizes in the header")


def test_labels_beyond_those_that_are_stored_take_no_memory(path, bases):
    base = next(
        base for base in bases if base.header.count('"neighbours":') == 1 and base.header.count('"weight":') == 1
    )
    header = json.loads(base.header)
    header["members"][0]["model"]["head"]["most_labels"] = 2**31 - 1
    with limited(_write(path, header, base.tensors)):
        topgb.load(path).predict(np.ones((2, 4), np.uint8))


def test_padding_to_a_huge_number_of_frames_is_refused(path, bases):
    base = next(base for base in bases if '"attend_to_padding":true' in base.header)
    header = json.loads(base.header)
    header["members"][0]["model"]["max_frames"] = 2**31 - 1
    refused(lambda: topgb.load(path), _write(path, header, base.tensors), "2147483647 frames")


@pytest.mark.parametrize("resident", ["packed", "full", "half"])
@pytest.mark.parametrize("told", [True, False])
def test_an_entropy_coded_stream_that_unpacks_to_a_gigabyte(resident, told, path, bases):
    """Of 2^30 zeros, whatever the header says of them, or of a few."""
    bomb = zlib_bomb(2**30)
    base = next(base for base in bases if '"int8_zlib"' in base.header and base.header.count("int8_zlib") == 1)
    header = json.loads(base.header)
    name = next(name for name, entry in header["tensors"].items() if entry["encoding"] == "int8_zlib")
    tensors = {**base.tensors, name + ".codes": Stored("U8", [len(bomb)], bomb)}
    if told:
        rows = header["tensors"][name]["shape"][0]
        header["tensors"][name]["shape"] = [rows, 2**30 // rows]
        header["features"]["features"][0]["size"] = 2**30 // rows
    refused(
        lambda: topgb.load(path, resident=resident), _write(path, header, tensors), "cannot be unpacked|architecture"
    )


@pytest.mark.parametrize("resident", ["packed", "full", "half"])
def test_an_entropy_coded_stream_of_a_huge_matrix(resident, path, bases, monkeypatch):
    """The header and the architecture agree on a matrix of 2^40 values; its stream has some bytes."""
    monkeypatch.setattr("topgb.modelfile.packed_linear.LEAST_WEIGHTS", 1)
    base = next(base for base in bases if '"int8_zlib"' in base.header and base.header.count("int8_zlib") == 1)
    header = json.loads(base.header)
    name = next(name for name, entry in header["tensors"].items() if entry["encoding"] == "int8_zlib")
    header["tensors"][name]["shape"][1] = header["features"]["features"][0]["size"] = 2**31 - 1
    refused(lambda: topgb.load(path, resident=resident), _write(path, header, base.tensors), "cannot be unpacked")


def _set(header: dict, key: str, value: int) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in parents:
        header = header[part]
    header[last] = value
