"""Whatever lies in a model file, `topgb.load` gives a model or says in one sentence why not."""

import copy
import itertools
import json
import math
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topgb
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.describe import describe
from topgb.modelfile.encodings import PARTS, encode_plain
from topgb.modelfile.member import encode_member
from topgb.modelfile.store import read_model_file
from topgb.models import build_tagger, parse_model
from topgb.models.reranker import Reranker, RerankerOptions
from topgb.quantizing.schemes import Scheme, encode

SPEC = FeatureSpec("frame", (Feature("rgb", 3), Feature("extra", 1, "float32")))
MODELS = [
    {"aggregator": "netvlad", "clusters": {"rgb": 2, "extra": 1}, "hidden": 2, "head": {"name": "moe", "low_rank": 1}},
    {"aggregator": "average", "features": ["rgb"], "head": {"name": "mlp", "width": 2}},
    {"aggregator": "average", "head": {"name": "neighbours", "videos": 3, "labels": 4, "most_labels": 2}},
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    entries, tensors, members = {}, {}, []
    for index, section in enumerate(MODELS):
        config = parse_model(section)
        more_entries, more_tensors = encode_member(index, build_tagger(SPEC, 2, config).state_dict())
        entries |= more_entries
        tensors |= more_tensors
        members.append(Member(1 / len(MODELS), config))
    schemes = (
        Scheme("uniform"),
        Scheme("int8"),
        Scheme("entropy", step=0.01),
        Scheme("groups", 3, 8),
        Scheme("float16"),
    )
    matrices = [name for name, entry in entries.items() if len(entry.shape) == 2]
    for name, scheme in zip(matrices, itertools.cycle(schemes), strict=False):
        entries[name], parts = encode(tensors.pop(name), scheme)
        tensors |= {name + suffix: part.contiguous() for suffix, part in parts.items()}
    assert {entry.encoding for entry in entries.values()} == set(PARTS)
    reranker = Reranker(2, RerankerOptions(embedding=3, width=4))
    for name, value in reranker.state_dict().items():
        entries[f"reranker.{name}"], parts = encode_plain(value, "float16")
        tensors[f"reranker.{name}"] = parts[""]
    path = tmp_path_factory.mktemp("fuzz") / "sound.safetensors"
    extras = {"thresholds": {"goal": "f1", "common": 0.5, "values": [0.5, 0.25]}, "other": [1]}
    header = Header(SPEC, 2, tuple(members), entries, ("a", "b"), {"step": 1}, reranker.options, extras)
    write_model_file(path, header, tensors)
    topgb.load(path)
    return path


def _load_or_refuse(path: Path, raw: bytes) -> None:
    path = path.with_name("mutated.safetensors")
    path.write_bytes(raw)
    try:
        describe(*read_model_file(path), len(raw))
        assert isinstance(topgb.load(path), topgb.Model)
        return
    except InputError as error:
        sentence = str(error)
    assert str(path) in sentence
    assert sentence.isprintable()


def _with_header(raw: bytes, text: str) -> bytes:
    (size,) = struct.unpack("<Q", raw[:8])
    outer = json.loads(raw[8 : 8 + size])
    outer["__metadata__"]["topgb"] = text
    encoded = json.dumps(outer).encode()
    return struct.pack("<Q", len(encoded)) + encoded + raw[8 + size :]


def _header_text(raw: bytes) -> str:
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size])["__metadata__"]["topgb"]


odd_values = st.one_of(
    st.sampled_from([None, True, "", "keys", "type", "training", "a.b", "\x1b\n", "\ud800", [], {}, 0, -1, 1.5, 16.0]),
    st.sampled_from([3 * 10**7, 2**31 - 1, 2**31, 10**12, 10**18, 10**30, 1e30, 1e39, math.nan, math.inf, -math.inf]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-3, 3), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
)


def _places(value) -> list[tuple]:
    """The keys to everything inside a JSON value, containers themselves too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in items for place in [(key,), *((key, *rest) for rest in _places(part))]]


def _mutate(data: st.DataObject, header: dict) -> None:
    *parents, last = data.draw(st.sampled_from(_places(header)))
    holder = header
    for key in parents:
        holder = holder[key]
    change = data.draw(st.sampled_from(["replace", "replace", "drop", "add", "repeat"]))
    if change == "drop":
        del holder[last]
    elif change == "replace":
        holder[last] = data.draw(odd_values)
    elif isinstance(holder, dict):
        holder[data.draw(st.text(max_size=8))] = holder[last] if change == "repeat" else data.draw(odd_values)
    else:
        holder.append(copy.deepcopy(holder[last]) if change == "repeat" else data.draw(odd_values))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_an_odd_header_never_ends_in_a_trace(sound, data):
    raw = sound.read_bytes()
    header = json.loads(_header_text(raw))
    for _ in range(data.draw(st.integers(1, 3))):
        _mutate(data, header)
    _load_or_refuse(sound, _with_header(raw, json.dumps(header)))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_odd_bytes_never_end_in_a_trace(sound, data):
    raw = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        stop = data.draw(st.one_of(st.integers(start, min(start + 4, len(raw))), st.just(len(raw))))
        raw[start:stop] = data.draw(st.binary(max_size=4))
    _load_or_refuse(sound, bytes(raw))


DTYPES = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "I16", "BF16", "C64", "F64", "U64", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [4, 6, 8, 16, 32, 64])
def test_tensors_of_other_types_are_refused(sound, dtype, bits):
    raw = sound.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    outer = json.loads(raw[8 : 8 + size])
    name = "members.0.aggregator.input_norm.weight"
    start, stop = outer[name]["data_offsets"]
    outer[name] |= {"dtype": dtype, "shape": [(stop - start) * 8 // bits]}
    encoded = json.dumps(outer).encode()
    odd = sound.with_name("odd.safetensors")
    odd.write_bytes(struct.pack("<Q", len(encoded)) + encoded + raw[8 + size :])
    with pytest.raises(InputError, match="odd.safetensors"):
        topgb.load(odd)


NO_HEADERS = ["[" * 100_000, '{"version":' * 900, '{"version": ' + "1" * 5000 + "}", "[]", "", "\0"]


@pytest.mark.parametrize("text", NO_HEADERS, ids=range(len(NO_HEADERS)))
def test_what_is_no_header_is_refused(sound, text):
    odd = sound.with_name("odd.safetensors")
    odd.write_bytes(_with_header(sound.read_bytes(), text))
    with pytest.raises(InputError, match="header is not readable"):
        topgb.load(odd)


def test_a_deep_origin_is_refused(sound):
    raw = sound.read_bytes()
    deep = '{"version":1,"origin":' + "[" * 400 + "]" * 400 + "}"
    odd = sound.with_name("odd.safetensors")
    odd.write_bytes(_with_header(raw, deep))
    with pytest.raises(InputError, match="header is not readable"):
        topgb.load(odd)


def test_a_huge_size_takes_no_memory(sound, monkeypatch):
    """The header's sizes are compared with the tensors before anything of these sizes is made."""
    raw = sound.read_bytes()
    header = json.loads(_header_text(raw))
    header["features"]["features"][0]["size"] = 2**31 - 1
    odd = sound.with_name("odd.safetensors")
    odd.write_bytes(_with_header(raw, json.dumps(header)))
    empty = torch.empty
    made = []

    def watched(*args, **kwargs):
        tensor = empty(*args, **kwargs)
        if tensor.numel() > 1 << 20:
            made.append(tensor)
        return tensor

    monkeypatch.setattr(torch, "empty", watched)
    with pytest.raises(InputError, match="architecture needs"):
        topgb.load(odd)
    assert made
    assert all(tensor.is_meta for tensor in made)
