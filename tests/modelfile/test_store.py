"""The model file: what goes in comes out bit for bit, and what is wrong with a file is said in one sentence."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from topgb.errors import InputError, TopgbError
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, read_model_file, write_model_file
from topgb.modelfile.describe import describe, to_json
from topgb.modelfile.encodings import encode
from topgb.modelfile.loaded import pack_member
from topgb.models import Tagger, build_tagger, parse_model

SPEC = FeatureSpec("frame", (Feature("rgb", 6), Feature("audio", 2)))
CLASSES = 5


def _tagger(seed: int, **section) -> Tagger:
    torch.manual_seed(seed)
    config = parse_model({"aggregator": "netvlad", "clusters": 2, "hidden": 4, "head": "moe", **section})
    return build_tagger(SPEC, CLASSES, config).eval()


def _pack(taggers: dict[float, Tagger], **header) -> tuple[Header, dict[str, torch.Tensor]]:
    entries, tensors = {}, {}
    for index, tagger in enumerate(taggers.values()):
        more_entries, more_tensors = pack_member(index, tagger.state_dict())
        entries |= more_entries
        tensors |= more_tensors
    members = tuple(Member(weight, tagger.config) for weight, tagger in taggers.items())
    return Header(SPEC, CLASSES, members, entries, **header), tensors


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 7, SPEC.width), dtype=np.uint8)


def _write(path: Path, taggers: dict[float, Tagger], **header) -> Path:
    write_model_file(path, *_pack(taggers, **header), force=True)
    return path


def test_a_loaded_model_predicts_the_same_bits(tmp_path, features):
    tagger = _tagger(1)
    path = _write(tmp_path / "m.safetensors", {1.0: tagger})
    counts = np.array([7, 3, 1], np.int32)
    with torch.inference_mode():
        expected = tagger.predict(torch.from_numpy(features), torch.from_numpy(counts)).numpy()
    np.testing.assert_array_equal(topgb.load(path).predict(features, counts), expected)
    np.testing.assert_array_equal(
        topgb.load(path).predict(features[1][:3]), topgb.load(path).predict(features[1:2, :3])[0]
    )


def test_the_same_model_gives_the_same_bytes(tmp_path):
    origin = {"software": "x", "b": [1, 2], "a": {"z": 1.5, "y": None}}
    one = _write(tmp_path / "1.safetensors", {1.0: _tagger(1)}, origin=origin)
    two = _write(tmp_path / "2.safetensors", {1.0: _tagger(1)}, origin=dict(reversed(origin.items())))
    assert one.read_bytes() == two.read_bytes()


def test_several_members_are_mixed_by_weight(tmp_path, features):
    plain = parse_model({"aggregator": "average", "features": ["audio"], "head": "logistic"})
    members = {0.75: _tagger(1), 0.25: build_tagger(SPEC, CLASSES, plain).eval()}
    mixed = topgb.load(_write(tmp_path / "e.safetensors", members)).predict(features)
    counts = torch.full((3,), 7, dtype=torch.int32)
    with torch.inference_mode():
        parts = [weight * tagger.predict(torch.from_numpy(features), counts) for weight, tagger in members.items()]
    np.testing.assert_allclose(mixed, sum(parts).numpy(), atol=1e-7)


def test_header_round_trip(tmp_path):
    header, tensors = _pack({1.0: _tagger(1)}, class_names=("a", "b", "c", "d", "é"), origin={"note": [1]})
    path = tmp_path / "m.safetensors"
    write_model_file(path, header, tensors)
    assert read_model_file(path)[0] == header


def test_float16_tensors_are_decoded(tmp_path, features):
    tagger = _tagger(1)
    header, tensors = _pack({1.0: tagger})
    name = "members.0.aggregator.hidden.weight"
    header.tensors[name], tensors[name] = encode(tagger.aggregator.hidden.weight, "float16")
    path = tmp_path / "m.safetensors"
    write_model_file(path, header, tensors)
    with torch.no_grad():
        tagger.aggregator.hidden.weight.copy_(tagger.aggregator.hidden.weight.half())
    full = topgb.load(_write(tmp_path / "full.safetensors", {1.0: tagger}))
    np.testing.assert_array_equal(topgb.load(path).predict(features), full.predict(features))


def test_show_tells_members_bytes_and_names(tmp_path):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)}, class_names=tuple("abcde"))
    header, tensors = read_model_file(path)
    text = describe(header, tensors, path.stat().st_size)
    for word in ("netvlad", "aggregator.hidden.weight", "4 × 16", "256", "a, b, c, d, e", "weight 1", "rgb: 6 values"):
        assert word in text
    value = to_json(header, tensors, path.stat().st_size)
    assert json.loads(json.dumps(value))["tensors"]["members.0.aggregator.hidden.weight"]["bytes"] == 256


def test_nothing_existing_is_overwritten_without_force(tmp_path):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)})
    before = path.read_bytes()
    with pytest.raises(InputError, match="--force"):
        write_model_file(path, *_pack({1.0: _tagger(2)}))
    assert path.read_bytes() == before


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)})
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("topgb.modelfile.store.save_file", full)
    with pytest.raises(TopgbError, match="No space left on device") as raised:
        _write(path, {1.0: _tagger(2)})
    assert raised.value.exit_code == 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _edit_header(path: Path, change) -> None:
    """Rewrite the JSON header inside a safetensors file, leaving the tensors as they are."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    outer = json.loads(raw[8 : 8 + size])
    inner = json.loads(outer["__metadata__"]["topgb"])
    change(inner)
    outer["__metadata__"]["topgb"] = json.dumps(inner)
    text = json.dumps(outer).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


HIDDEN = "members.0.aggregator.hidden.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update(version=2), "format 2.*upgrade topgb"),
        (lambda h: h.update(version="x"), "format x"),
        (lambda h: h.pop("version"), "header is not readable"),
        (lambda h: h.pop("classes"), "malformed"),
        (lambda h: h.update(classes=6), "architecture needs"),
        (lambda h: h.update(classes=0), "0 classes"),
        (lambda h: h.update(class_names=["a"]), "1 class names for 5 classes"),
        (lambda h: h["members"][0].update(weight=0.5), "sum to 0.5"),
        (lambda h: h.update(members=[]), "sum to 0"),
        (lambda h: h["members"][0]["model"].update(aggregator="nope"), "no aggregator 'nope'"),
        (lambda h: h["members"][0]["model"].update(hidden=9), "architecture needs"),
        (lambda h: h["members"][0]["model"].update(surprise=9), "unknown key 'model.surprise'"),
        (lambda h: h["tensors"][HIDDEN].update(encoding="int3"), "encoding 'int3'.*upgrade topgb"),
        (lambda h: h["tensors"][HIDDEN].update(encoding="float16"), "header says float16"),
        (lambda h: h["tensors"][HIDDEN].update(shape=[4, 15]), r"header says float32 \[4, 15\]"),
        (lambda h: h["tensors"].pop(HIDDEN), "header and tensors disagree"),
        (lambda h: h["features"]["features"][0].update(size=7), "architecture needs"),
        (lambda h: h["features"]["features"].clear(), "names no feature"),
    ],
)
def test_an_odd_header_is_refused_by_name(tmp_path, change, words):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)})
    _edit_header(path, change)
    with pytest.raises(InputError, match=words) as raised:
        topgb.load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    tagger = _tagger(1)
    with torch.no_grad():
        tagger.aggregator.hidden.weight[0, 0] = value
    path = _write(tmp_path / "m.safetensors", {1.0: tagger})
    with pytest.raises(InputError, match=f"{HIDDEN}.*not finite"):
        topgb.load(path)


@pytest.mark.parametrize("kept", [0, 4, 100, 2000])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        topgb.load(path)


def test_files_that_are_no_model_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, other)
    with pytest.raises(InputError, match="not a topgb model file"):
        topgb.load(other)
    with pytest.raises(InputError, match="there is no file"):
        topgb.load(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="is a directory"):
        topgb.load(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 7), np.uint8),
        np.zeros((2, 3, 8), np.float32),
        np.zeros(8, np.uint8),
    ],
)
def test_predict_says_what_it_takes(tmp_path, wrong):
    model = topgb.load(_write(tmp_path / "m.safetensors", {1.0: _tagger(1)}))
    with pytest.raises(InputError, match="takes uint8"):
        model.predict(wrong)
    with pytest.raises(InputError, match="num_frames"):
        model.predict(np.zeros((2, 3, 8), np.uint8), np.array([1, 4]))
