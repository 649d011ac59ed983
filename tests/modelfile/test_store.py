"""The model file: what goes in comes out bit for bit, and what is wrong with a file is said in one sentence."""

import json
import math
import struct
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from tolerances import assert_same_predictions
from topgb.errors import InputError, TopgbError
from topgb.features import Feature, FeatureSpec
from topgb.files import atomic_write
from topgb.modelfile import Header, Member, load, read_model_file, write_model_file
from topgb.modelfile.describe import describe, to_json
from topgb.modelfile.encodings import encode_plain
from topgb.modelfile.member import encode_member
from topgb.models import Tagger, build_tagger, parse_model
from topgb.tensors import load_tensors, save_tensors

pytestmark = pytest.mark.numeric

SPEC = FeatureSpec("frame", (Feature("rgb", 6), Feature("audio", 2)))
CLASSES = 5


def _tagger(seed: int, **section) -> Tagger:
    torch.manual_seed(seed)
    config = parse_model({"aggregator": "netvlad", "clusters": 2, "hidden": 4, "head": "moe", **section})
    return build_tagger(SPEC, CLASSES, config).eval()


def _pack(taggers: dict[float, Tagger], **header) -> tuple[Header, dict[str, torch.Tensor]]:
    entries, tensors = {}, {}
    for index, tagger in enumerate(taggers.values()):
        more_entries, more_tensors = encode_member(index, tagger.state_dict())
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


def test_a_loaded_model_predicts_what_was_written(tmp_path, features):
    tagger = _tagger(1)
    path = _write(tmp_path / "m.safetensors", {1.0: tagger})
    counts = np.array([7, 3, 1], np.int32)
    with torch.inference_mode():
        expected = tagger.predict(torch.from_numpy(features), torch.from_numpy(counts)).numpy()
    assert_same_predictions(load(path).predict(features, counts), expected)
    assert_same_predictions(load(path).predict(features[1][:3]), load(path).predict(features[1:2, :3])[0])


def test_the_same_model_gives_the_same_bytes(tmp_path):
    origin = {"software": "x", "b": [1, 2], "a": {"z": 1.5, "y": None}}
    one = _write(tmp_path / "1.safetensors", {1.0: _tagger(1)}, origin=origin)
    two = _write(tmp_path / "2.safetensors", {1.0: _tagger(1)}, origin=dict(reversed(origin.items())))
    assert one.read_bytes() == two.read_bytes()


def test_several_members_are_mixed_by_weight(tmp_path, features):
    plain = parse_model({"aggregator": "average", "features": ["audio"], "head": "logistic"})
    members = {0.75: _tagger(1), 0.25: build_tagger(SPEC, CLASSES, plain).eval()}
    mixed = load(_write(tmp_path / "e.safetensors", members)).predict(features)
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
    header.tensors[name], parts = encode_plain(tagger.aggregator.hidden.weight, "float16")
    tensors[name] = parts[""]
    path = tmp_path / "m.safetensors"
    write_model_file(path, header, tensors)
    with torch.no_grad():
        tagger.aggregator.hidden.weight.copy_(tagger.aggregator.hidden.weight.half())
    full = load(_write(tmp_path / "full.safetensors", {1.0: tagger}))
    assert_same_predictions(load(path).predict(features), full.predict(features))


def test_show_tells_members_bytes_and_names(tmp_path):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)}, class_names=tuple("abcde"))
    header, tensors = read_model_file(path)
    text = describe(header, tensors, path.stat().st_size)
    for word in (
        "netvlad",
        "aggregator.hidden.weight",
        "4 × 16",
        "256",
        "0 a, 1 b, 2 c, 3 d, 4 e",
        "weight 1",
        "rgb: 6 values",
    ):
        assert word in text
    value = to_json(header, tensors, path.stat().st_size)
    assert json.loads(json.dumps(value))["tensors"]["members.0.aggregator.hidden.weight"]["bytes"] == 256


def test_nothing_existing_is_overwritten_without_force(tmp_path):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)})
    before = path.read_bytes()
    with pytest.raises(InputError, match="force=True"):
        write_model_file(path, *_pack({1.0: _tagger(2)}))
    assert path.read_bytes() == before


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)})
    before = path.read_bytes()

    @contextmanager
    def full(path):
        with atomic_write(path) as file:
            yield file
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("topgb.tensors.atomic_write", full)
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


def _feature(**change):
    return lambda header: header["features"]["features"][0].update(change)


def _all_huge(header: dict) -> None:
    header["classes"] = 2**31 - 1
    header["class_names"] = None
    header["members"][0]["model"]["head"]["mixtures"] = 2**31 - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update(version=4), "format 4.*upgrade topgb"),
        (lambda h: h.update(version="x"), "'version' is 'x'"),
        (lambda h: h.update(version=0), "'version' is 0"),
        (lambda h: h.update(version=-1), "'version' is -1"),
        (lambda h: h.update(version=True), "'version' is True"),
        (lambda h: h.pop("version"), "header is not readable"),
        (lambda h: h.pop("classes"), "malformed"),
        (lambda h: h.update(classes=6), "architecture needs"),
        (lambda h: h.update(classes=0), "'classes' is 0"),
        (lambda h: h.update(classes="5"), "'classes' is '5'"),
        (lambda h: h.update(classes=1e30), "'classes' is 1e.30"),
        (lambda h: h.update(classes=math.inf), "header is not readable"),
        (lambda h: h.update(origin={"score": math.nan}), "header is not readable"),
        (lambda h: h.update(class_names="abcde"), "'class_names' is 'abcde'"),
        (lambda h: h.update(class_names=["a"]), "1 class names for 5 classes"),
        (lambda h: h["members"][0].update(weight=0.5), "sum to 0.5"),
        (lambda h: h["members"][0].update(weight=math.nan), "header is not readable"),
        (lambda h: h["members"].append({**h["members"][0], "weight": -1.0}), "'members.1.weight' is -1.0"),
        (lambda h: h.update(members=[]), "'members' is .*at least 1"),
        (lambda h: h["members"][0]["model"].update(aggregator="nope"), "no aggregator 'nope'"),
        (lambda h: h["members"][0]["model"].update(hidden=9), "architecture needs"),
        (lambda h: h["members"][0]["model"].update(hidden=10**20), "member 0: 'model.hidden' is 10*; numbers go up"),
        (lambda h: h["members"][0]["model"].update(clusters={"rgb": 10**9, "audio": 2}), "architecture needs"),
        (lambda h: h["members"][0]["model"]["head"].update(mixtures=2**31 - 1), "architecture needs"),
        (lambda h: _all_huge(h), "member 0: the sizes in the header make no model"),
        (lambda h: h["members"][0]["model"].update(max_frames=10**30), "'model.max_frames' is"),
        (lambda h: h["members"][0]["model"].update(features=["nope"]), "member 0: there is no feature 'nope'"),
        (lambda h: h["members"][0]["model"].update(features=[]), "'model.features' is "),
        (lambda h: h["members"][0]["model"].update(surprise=9), "unknown key 'model.surprise'"),
        (lambda h: h["tensors"][HIDDEN].update(encoding="int3"), "encoding 'int3'.*upgrade topgb"),
        (lambda h: h["tensors"][HIDDEN].update(encoding="float16"), "header says float16"),
        (lambda h: h["tensors"][HIDDEN].update(shape=[4, 15]), r"header says float32 \[4, 15\]"),
        (lambda h: h["tensors"][HIDDEN].update(shape=[4, -16]), "shape.1' is -16"),
        (lambda h: h["tensors"][HIDDEN].update(bit=3), "unknown key .*bit'.* knows: bits, encoding, group, shape"),
        (lambda h: h["tensors"].pop(HIDDEN), "header and tensors disagree"),
        (lambda h: h["features"]["features"][0].update(size=7), "architecture needs"),
        (lambda h: h["features"]["features"].clear(), "names no feature"),
        (lambda h: h["features"].update(level="foo"), "'features.level' is 'foo'"),
        (lambda h: h.update(surprise=9), "unknown key 'surprise'"),
        (_feature(size=6.0), "size' is 6.0"),
        (_feature(size=2**31), "size 2147483648"),
        (_feature(dtype="int32"), "dtype' is 'int32'"),
        (_feature(range=["a", "b"]), "range.0' is 'a'"),
        (_feature(range=[[1], [2]]), r"range.0' is \[1\]"),
        (_feature(range=[-2, 2, 3]), "range' is .*at most 2"),
        (_feature(range=[-1e39, 1e39]), "must be finite"),
        (_feature(range=[2.0, -2.0]), "low must be below high"),
        (_feature(name=5), "name' is 5"),
        (_feature(name="a.b"), "named 'a.b'"),
        (_feature(name=""), "named ''"),
        (_feature(name="audio"), "'audio' twice"),
    ],
)
def test_an_odd_header_is_refused_by_name(tmp_path, change, words):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)})
    _edit_header(path, change)
    with pytest.raises(InputError, match=words) as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    tagger = _tagger(1)
    with torch.no_grad():
        tagger.aggregator.hidden.weight[0, 0] = value
    path = _write(tmp_path / "m.safetensors", {1.0: tagger})
    with pytest.raises(InputError, match=f"{HIDDEN}.*not finite"):
        load(path)


def test_a_negative_variance_is_refused(tmp_path):
    tagger = _tagger(1)
    tagger.aggregator.input_norm.running_var[0] = -1
    path = _write(tmp_path / "m.safetensors", {1.0: tagger})
    with pytest.raises(InputError, match="input_norm.running_var has a negative variance"):
        load(path)


@pytest.mark.parametrize("name", ["foo", "members.1.head.x", "members.00.head.x", "members.0"])
def test_a_tensor_of_no_member_is_refused(tmp_path, name):
    header, tensors = _pack({1.0: _tagger(1)})
    header.tensors[name], parts = encode_plain(torch.zeros(1), "float32")
    tensors[name] = parts[""]
    write_model_file(tmp_path / "m.safetensors", header, tensors)
    with pytest.raises(InputError, match=f"tensor '{name}' belongs to no member"):
        read_model_file(tmp_path / "m.safetensors")


def test_features_may_have_the_names_of_a_modules_attributes(tmp_path):
    spec = FeatureSpec("frame", tuple(Feature(name, 2) for name in ("keys", "type", "training", "forward")))
    tagger = build_tagger(spec, 3, parse_model({"aggregator": "netvlad", "clusters": 2, "hidden": 4, "head": "moe"}))
    tagger.train().eval()
    entries, tensors = encode_member(0, tagger.state_dict())
    assert "members.0.aggregator.pools.keys.assign.weight" in entries
    path = tmp_path / "m.safetensors"
    write_model_file(path, Header(spec, 3, (Member(1.0, tagger.config),), entries), tensors)
    features = np.random.default_rng(0).integers(0, 256, (2, 3, 8), dtype=np.uint8)
    with torch.inference_mode():
        expected = tagger.predict(torch.from_numpy(features), torch.tensor([3, 3])).numpy()
    assert_same_predictions(load(path).predict(features), expected)


def test_show_does_not_hand_control_characters_to_the_terminal(tmp_path):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)}, class_names=("a\x1b[2J\n", *"bcdé"))
    text = describe(*read_model_file(path), path.stat().st_size)
    assert "classes: 0 a\\x1b[2J\\n, 1 b, 2 c, 3 d, 4 é" in text


@pytest.mark.parametrize("kept", [0, 4, 100, 2000])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = _write(tmp_path / "m.safetensors", {1.0: _tagger(1)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="is cut off" if kept > 8 else "is not a safetensors file"):
        load(path)


def test_files_that_are_no_model_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, other)
    with pytest.raises(InputError, match="not a topgb model file"):
        load(other)
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="is a directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 7), np.uint8),
        np.zeros((2, 3, 8), np.float32),
        np.zeros(8, np.uint8),
    ],
)
def test_predict_says_what_it_takes(tmp_path, wrong):
    model = load(_write(tmp_path / "m.safetensors", {1.0: _tagger(1)}))
    with pytest.raises(InputError, match="takes uint8"):
        model.predict(wrong)
    with pytest.raises(InputError, match="num_frames"):
        model.predict(np.zeros((2, 3, 8), np.uint8), np.array([1, 4]))
    with pytest.raises(InputError, match="at least one frame"):
        model.predict(np.zeros((2, 0, 8), np.uint8))


@pytest.mark.parametrize("resident", ["packed", "full"])
@pytest.mark.parametrize("frames", [0, 3])
def test_no_videos_have_no_probabilities(tmp_path, resident, frames):
    model = load(_write(tmp_path / "m.safetensors", {0.25: _tagger(1), 0.75: _tagger(2)}), resident=resident)
    features = np.zeros((0, frames, SPEC.width), np.uint8)
    for counts in (None, np.zeros(0, np.int32)):
        found = model.predict(features, counts)
        assert (found.shape, found.dtype) == ((0, CLASSES), np.float32)
    with pytest.raises(InputError, match="num_frames must be 0 numbers"):
        model.predict(features, np.array([3]))


def test_rows_of_int8_lie_where_kernels_want_them(tmp_path):
    """Whatever lies beside them, and whatever the header's length."""
    for length in range(1, 18):
        tensors = {
            "a" * length: torch.zeros(length),
            "codes": torch.arange(64).char().view(2, 32),
            "more": torch.arange(48).char().view(3, 16),
            "scales": torch.ones(length).bfloat16(),
            "flags": torch.ones(length, dtype=torch.bool),
            "count": torch.tensor(length),
        }
        save_tensors(tmp_path / "t", tensors, {"topgb": "{}"})
        loaded, metadata = load_tensors(tmp_path / "t")
        assert metadata == {"topgb": "{}"}
        assert loaded.keys() == tensors.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
        assert all(loaded[name].data_ptr() % 16 == 0 for name in ("codes", "more"))
