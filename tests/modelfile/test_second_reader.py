"""The reader written from the page agrees with the package, in every branch of every option."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from modelfile.second_reader import SecondReader
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, load, write_model_file
from topgb.modelfile.encodings import PARTS, encode_plain
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.models.reranker import Reranker, RerankerOptions
from topgb.quantizing.schemes import Scheme, encode

pytestmark = pytest.mark.numeric

# In no order that a reader could take for granted.
SPEC = FeatureSpec(
    "frame", (Feature("video", 6), Feature("extra", 3, "float32"), Feature("audio", 4, range=(0.0, 1.0)))
)
CLUSTERS = {"audio": 2, "video": 3, "extra": 1}
CELLS = {"extra": 2, "audio": 4, "video": 6}
NETVLAD = {"aggregator": "netvlad", "clusters": CLUSTERS, "hidden": 5}
NETFV = {"aggregator": "netfv", "clusters": CLUSTERS, "hidden": 5}
SOFT = {"aggregator": "soft_dbof", "clusters": {"audio": 5, "video": 3, "extra": 2}, "hidden": 5}
GATED = {**SOFT, "aggregator": "gated_dbof"}
DBOF = {"aggregator": "dbof", "clusters": 7, "hidden": 5}
NEXTVLAD = {
    "aggregator": "nextvlad",
    "clusters": CLUSTERS,
    "groups": {"extra": 3, "audio": 2, "video": 4},
    "hidden": 5,
    "reduction": 2,
}
ATTENTION = {"aggregator": "attention", "hidden": CELLS}
BRANCHED = {"aggregator": "branched_gru", "cells": CELLS}
PLAIN = {"batch_norm": False}
GATES = {"gating": True, "gating_remove_diagonal": True}

CASES = {
    "average": {"aggregator": "average"},
    "average-std-raw": {"aggregator": "average", "std": True, "normalization": "none"},
    "average-two-features": {"aggregator": "average", "features": ["audio", "video"], "max_frames": 2},
    "netvlad": NETVLAD,
    "netvlad-gated": {**NETVLAD, "relu": False, "gating": True},
    "netvlad-light-plain-gated": {**NETVLAD, **PLAIN, "light": True, "gating": True},
    "netvlad-diagonal": {**NETVLAD, **GATES},
    "netvlad-no-hidden": {**NETVLAD, "hidden": None},
    "netfv": NETFV,
    "netfv-coupled-otherwise": {**NETFV, "coupling": 0.7, "relu": False, **GATES},
    "netfv-uncoupled": {**NETFV, "coupling": None, "gating": True},
    "netfv-uncoupled-plain": {**NETFV, **PLAIN, "coupling": None, **GATES},
    "netfv-no-hidden": {**NETFV, **PLAIN, "hidden": None},
    "soft": SOFT,
    "soft-max": {**SOFT, "max_pool": True, "relu": False, "gating": True},
    "soft-max-plain-no-hidden": {**SOFT, **PLAIN, "max_pool": True, "hidden": None, "clusters": 4},
    "gated": GATED,
    "gated-one": {**GATED, "gated": ["audio"], "max_pool": True, "hidden": None},
    "gated-two-plain": {**GATED, **PLAIN, "gated": ["extra", "video"], "relu": False, "gating": True},
    "dbof": DBOF,
    "dbof-average": {**DBOF, "pooling": "average"},
    "dbof-plain": {**DBOF, **PLAIN},
    "dbof-plain-average": {**DBOF, **PLAIN, "pooling": "average", "normalization": "none"},
    "nextvlad": NEXTVLAD,
    "nextvlad-one-number": {**NEXTVLAD, "clusters": 4, "groups": 1, "expansion": 1, "reduction": 8},
    "nextvlad-two-features": {
        **NEXTVLAD,
        "clusters": {"audio": 3, "video": 2},
        "groups": {"video": 9, "audio": 6},
        "features": ["audio", "video"],
        "expansion": 3,
        "normalization": "none",
    },
    "nextvlad-no-gates": {**NEXTVLAD, "reduction": None},
    "attention": ATTENTION,
    "attention-padding": {**ATTENTION, "attend_to_padding": True, "max_frames": 8},
    "attention-padding-cut": {**ATTENTION, "attend_to_padding": True, "max_frames": 3, "hidden": 4},
    "attention-padding-raw": {**ATTENTION, "attend_to_padding": True, "max_frames": 8, "normalization": "none"},
    "lstm": {"aggregator": "lstm", "cells": 4},
    "lstm-one-layer": {"aggregator": "lstm", "cells": 3, "layers": 1},
    "lstm-three-layers": {"aggregator": "lstm", "cells": 3, "layers": 3},
    "bilstm": {"aggregator": "bilstm", "cells": 6},
    "bigru": {"aggregator": "bigru", "cells": 6},
    "bigru-gated": {"aggregator": "bigru", "cells": 6, "gating": True},
    "bigru-after-gated": {"aggregator": "bigru", "cells": 6, "reset": "after", "gating": True},
    "branched": BRANCHED,
    "branched-after-count": {**BRANCHED, "cells": 4, "reset": "after", "count_padding": True, "max_frames": 8},
}

HEADS = [
    "logistic",
    {"name": "mlp", "width": 7},
    {"name": "mlp", "width": 7, "activation": "silu"},
    "moe",
    {"name": "moe", "mixtures": 3, "low_rank": 2, "gating": "input"},
    {"name": "moe", "gating": "input", "gating_remove_diagonal": True},
    {"name": "moe", "gating": "probabilities"},
    {"name": "moe", "gating": "probabilities", "gating_remove_diagonal": True},
]
MEMORY = {"name": "neighbours", "videos": 6, "labels": 9, "most_labels": 3, "neighbours": 4, "temperature": 0.3}
MEMORIES = [MEMORY, {**MEMORY, "width": 7}, {**MEMORY, "width": 7, "activation": "relu", "neighbours": 50}]
LABELS = {"head.label_bounds": [0, 1, 4, 4, 6, 8, 9], "head.label_classes": [3, 0, 1, 2, 1, 3, 2, 0, 1]}

MIXTURES = {
    "netvlad": {**NETVLAD, "mixture": 3, "head": "logistic"},
    "nextvlad-two-features": {**CASES["nextvlad-two-features"], "mixture": 2, "head": {"name": "mlp", "width": 7}},
    "average-moe": {"aggregator": "average", "mixture": 3, "head": {"name": "moe", "gating": "probabilities"}},
    "attention-padding": {**CASES["attention-padding"], "mixture": 2, "head": "logistic"},
}


SCHEMES = {
    "float16": Scheme("float16"),
    "codebook": Scheme("kmeans"),
    "int8": Scheme("int8"),
    "int8_zlib": Scheme("entropy", step=0.02),
    **{f"groups, {bits}": Scheme("groups", bits, 16) for bits in (2, 3, 4, 5, 6, 7, 8)},
}


def _compare(section, tmp_path, filled=None, scheme=None):
    """`filled` are values of tensors by name; with `scheme` every tensor is stored so."""
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, 4, parse_model(section))
    for name, tensor in tagger.state_dict().items():
        # Every initial 0 and 1 would hide a tensor that is left out, or taken for another.
        if name.endswith("running_var"):
            tensor.uniform_(0.2, 1.5)
        elif "norm" in name or name.endswith(("bias", "centre")) or name == "head.gate.weight":
            tensor.normal_()
    for name, value in (filled or {}).items():
        tagger.state_dict()[name].copy_(torch.as_tensor(value))
    entries, tensors = encode_member(0, tagger.state_dict())
    for name in list(entries) if scheme else []:
        entries[name], parts = encode(tensors.pop(name), scheme)
        tensors |= {name + suffix: part.contiguous() for suffix, part in parts.items()}
    path = tmp_path / "m.safetensors"
    write_model_file(path, Header(SPEC, 4, (Member(1.0, tagger.config),), entries), tensors)
    video = np.random.default_rng(0).integers(0, 256, (5, SPEC.width)).astype(np.float32)
    video[:, 6:9] = np.random.default_rng(1).normal(size=(5, 3))
    reader = SecondReader(path)
    np.testing.assert_allclose(load(path).predict(video), reader.predict(video), atol=1e-5, rtol=0)
    assert reader.used == reader.tensors.keys(), "the page leaves no tensor out"


@pytest.mark.parametrize("name", CASES)
def test_a_reader_written_from_the_page_agrees_on_aggregators(name, tmp_path):
    _compare({**CASES[name], "head": "logistic"}, tmp_path)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_a_reader_written_from_the_page_agrees_on_heads(head, tmp_path):
    _compare({"aggregator": "average", "std": True, "head": head}, tmp_path)


@pytest.mark.parametrize("head", MEMORIES, ids=str)
def test_a_reader_written_from_the_page_agrees_on_memories(head, tmp_path):
    filled = {name: torch.tensor(values) for name, values in LABELS.items()}
    _compare({"aggregator": "average", "std": True, "head": head}, tmp_path, filled)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_reader_written_from_the_page_agrees_on_mixtures(name, tmp_path):
    _compare(MIXTURES[name], tmp_path)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_reader_written_from_the_page_agrees_on_encodings(name, tmp_path):
    _compare({**NETVLAD, "head": HEADS[-1]}, tmp_path, scheme=SCHEMES[name])


def test_every_encoding_on_the_page_has_a_case():
    table = (
        (Path(__file__).parents[2] / "docs/model-file.md").read_text().split("### Encodings")[1].split("In `groups`")[0]
    )
    described = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) - {"encoding"}
    assert described == set(PARTS)
    assert described == {name.split(",")[0] for name in SCHEMES} | {"float32", "int32"}


def test_a_member_of_a_mixture_is_no_surer_than_the_page_says(tmp_path):
    section = {"aggregator": "average", "mixture": 2, "head": "logistic"}
    equal = {"head.gate.weight": 0.0, "head.gate.bias": 0.0}
    _compare(section, tmp_path, {**equal, "head.members.0.output.bias": 6.0, "head.members.1.output.bias": -40.0})


def test_every_architecture_on_the_page_has_a_case():
    page = (Path(__file__).parents[2] / "docs/model-file.md").read_text()
    aggregators, heads = page.split("### Aggregators")[1].split("### Heads")
    assert _described(aggregators) == {case["aggregator"] for case in CASES.values()}
    assert _described(heads) == {head if isinstance(head, str) else head["name"] for head in HEADS + MEMORIES}


def _described(text):
    return {name for bold in re.findall(r"\*\*(`.+?)\*\*", text) for name in re.findall(r"`(\w+)`", bold)}


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 3, "embedding": 5, "width": 6, "layers": 2, "heads": 3},
        {"candidates": 9, "embedding": 2, "width": 4, "layers": 1, "heads": 1},
        {"candidates": 2, "embedding": 2, "width": 4, "layers": 0},
    ],
)
def test_second_stages_agree(options, tmp_path):
    torch.manual_seed(0)
    taggers = [build_tagger(SPEC, 4, parse_model({"aggregator": "average", "head": "logistic"})) for _ in range(2)]
    reranker = Reranker(4, RerankerOptions(**options))
    entries, tensors = {}, {}
    for index, tagger in enumerate(taggers):
        more, values = encode_member(index, tagger.state_dict())
        entries |= more
        tensors |= values
    for name, value in reranker.state_dict().items():
        entries[f"reranker.{name}"], parts = encode_plain(torch.randn_like(value), "float16")
        tensors[f"reranker.{name}"] = parts[""]
    members = tuple(Member(share, tagger.config) for share, tagger in zip((0.3, 0.7), taggers, strict=True))
    path = tmp_path / "m.safetensors"
    write_model_file(path, Header(SPEC, 4, members, entries, reranker=reranker.options), tensors)
    video = np.random.default_rng(0).integers(0, 256, (5, SPEC.width)).astype(np.float32)
    reader = SecondReader(path)
    predicted = load(path).predict(video)
    np.testing.assert_allclose(reader.predict(video), predicted, atol=1e-5)
    assert reader.used == set(reader.tensors)
    mixture = sum(
        m.weight * t.eval().predict(torch.from_numpy(video[None]), torch.tensor([5]))
        for m, t in zip(members, taggers, strict=True)
    )
    assert np.abs(mixture[0].detach().numpy() - predicted).max() > 0.05
