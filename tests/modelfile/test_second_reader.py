"""A second reader of the model file, written from docs/model-file.md alone: bytes, JSON and NumPy, no topgb.

If the page stops being true, this reader stops agreeing with the first.
"""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.loaded import pack_member
from topgb.models import build_tagger, parse_model


class SecondReader:
    def __init__(self, path: Path):
        raw = path.read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        outer = json.loads(raw[8 : 8 + size])
        self.header = json.loads(outer.pop("__metadata__")["topgb"])
        assert self.header["version"] == 1
        self.tensors = {}
        for name, entry in outer.items():
            dtype = {"F32": np.float32, "F16": np.float16}[entry["dtype"]]
            start, stop = entry["data_offsets"]
            values = np.frombuffer(raw[8 + size + start : 8 + size + stop], dtype)
            self.tensors[name] = values.reshape(entry["shape"]).astype(np.float64)
        assert self.tensors.keys() == self.header["tensors"].keys()

    def predict(self, video: np.ndarray) -> np.ndarray:
        members = enumerate(self.header["members"])
        return sum(member["weight"] * self._member(f"members.{i}.", member["model"], video) for i, member in members)

    def _member(self, prefix: str, model: dict, video: np.ndarray) -> np.ndarray:
        columns, parts, start = {}, [], 0
        for feature in self.header["features"]["features"]:
            values = video[: model["max_frames"], start : start + feature["size"]].astype(np.float64)
            start += feature["size"]
            if model["features"] is not None and feature["name"] not in model["features"]:
                continue
            if feature["dtype"] == "uint8":
                low, high = feature["range"]
                values = values * (high - low) / 255 + (high - low) / 512 + low
            parts.append(values)
            columns[feature["name"]] = slice(sum(p.shape[1] for p in parts[:-1]), sum(p.shape[1] for p in parts))
        rows = np.hstack(parts)
        if model["normalization"] == "l2":
            rows = rows / np.sqrt(np.maximum((rows**2).sum(1, keepdims=True), 1e-12))
        vector = getattr(self, model["aggregator"])(prefix + "aggregator.", model, rows, columns)
        return getattr(self, model["head"]["name"])(prefix + "head.", model["head"], vector)

    def average(self, p: str, o: dict, rows: np.ndarray, columns: dict) -> np.ndarray:
        mean = rows.mean(0)
        return np.concatenate([mean, np.sqrt(((rows - mean) ** 2).mean(0) + 1e-12)]) if o["std"] else mean

    def netvlad(self, p: str, o: dict, rows: np.ndarray, columns: dict) -> np.ndarray:
        t = self.tensors
        if o["batch_norm"]:
            rows = self._bn(p + "input_norm", rows)
        parts = []
        for name, where in columns.items():
            x, q = rows[:, where], f"{p}vlad.{name}."
            a = x @ t[q + "assign.weight"].T
            a = _softmax(self._bn(q + "norm", a) if o["batch_norm"] else a + t[q + "assign.bias"])
            v = x.T @ a - (0 if o["light"] else a.sum(0) * t[q + "centres"])
            v = (v / np.sqrt((v**2).sum(0))).ravel()
            parts.append(v / np.sqrt((v**2).sum()))
        h = t[p + "hidden.weight"] @ np.concatenate(parts)
        h = self._bn(p + "hidden_norm", h) if o["batch_norm"] and o["relu"] else h + t[p + "hidden.bias"]
        if o["relu"]:
            h = np.clip(h, 0, 6)
        if o["gating"]:
            weight = t[p + "gating.gate.weight"]
            if o["gating_remove_diagonal"]:
                weight = weight - np.diag(np.diag(weight))
            g = weight @ h
            h = h * _sigmoid(self._bn(p + "gating.norm", g) if o["batch_norm"] else g + t[p + "gating.gate.bias"])
        return h

    def logistic(self, p: str, o: dict, v: np.ndarray) -> np.ndarray:
        return _sigmoid(self.tensors[p + "output.weight"] @ v + self.tensors[p + "output.bias"])

    def mlp(self, p: str, o: dict, v: np.ndarray) -> np.ndarray:
        h = self._bn(p + "norm", self.tensors[p + "hidden.weight"] @ v)
        h = {"relu": np.maximum(h, 0), "silu": h * _sigmoid(h)}[o["activation"]]
        return self.logistic(p + "logistic.", o, h)

    def moe(self, p: str, o: dict, v: np.ndarray) -> np.ndarray:
        t, classes = self.tensors, self.header["classes"]
        low_rank = o["low_rank"] is not None
        g = t[p + "gates.expand.weight"] @ (t[p + "gates.reduce.weight"] @ v) if low_rank else t[p + "gates.weight"] @ v
        e = _sigmoid(t[p + "experts.weight"] @ v + t[p + "experts.bias"]).reshape(classes, -1)
        probabilities = (_softmax(g.reshape(classes, -1))[:, :-1] * e).sum(1)
        if o["gating"] == "none":
            return probabilities
        weight = t[p + "gating.gate.weight"]
        if o["gating_remove_diagonal"]:
            weight = weight - np.diag(np.diag(weight))
        z = probabilities if o["gating"] == "probabilities" else v
        return probabilities * _sigmoid(self._bn(p + "gating.norm", weight @ z))

    def _bn(self, name: str, x: np.ndarray) -> np.ndarray:
        mean, variance, weight, bias = (
            self.tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(variance + 0.001) * weight + bias


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


SPEC = FeatureSpec("frame", (Feature("rgb", 6), Feature("extra", 3, "float32"), Feature("audio", 4, range=(0.0, 1.0))))
NETVLAD = {"aggregator": "netvlad", "clusters": {"rgb": 3, "extra": 1, "audio": 2}, "hidden": 5}


@pytest.mark.parametrize(
    "section",
    [
        {"aggregator": "average", "head": "logistic"},
        {"aggregator": "average", "std": True, "normalization": "none", "head": {"name": "mlp", "width": 7}},
        {"aggregator": "average", "head": {"name": "mlp", "width": 7, "activation": "silu"}},
        {"aggregator": "average", "features": ["audio", "rgb"], "max_frames": 2, "head": "moe"},
        {**NETVLAD, "head": {"name": "moe", "mixtures": 3, "low_rank": 2, "gating": "input"}},
        {**NETVLAD, "relu": False, "gating": True, "head": {"name": "moe", "gating": "probabilities"}},
        {**NETVLAD, "light": True, "batch_norm": False, "gating": True, "head": "logistic"},
        {
            **NETVLAD,
            "gating": True,
            "gating_remove_diagonal": True,
            "head": {"name": "moe", "gating": "probabilities", "gating_remove_diagonal": True},
        },
    ],
    ids=lambda section: (
        f"{section['aggregator']}-{section['head'] if isinstance(section['head'], str) else section['head']['name']}"
    ),
)
def test_a_reader_written_from_the_page_agrees(section, tmp_path):
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, 4, parse_model(section))
    for name, tensor in tagger.state_dict().items():
        if "norm" in name:
            tensor.uniform_(0.2, 1.5) if name.endswith("var") else tensor.normal_()
    entries, tensors = pack_member(0, tagger.state_dict())
    path = tmp_path / "m.safetensors"
    write_model_file(path, Header(SPEC, 4, (Member(1.0, tagger.config),), entries), tensors)
    video = np.random.default_rng(0).integers(0, 256, (5, SPEC.width)).astype(np.float32)
    video[:, 6:9] = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_allclose(topgb.load(path).predict(video), SecondReader(path).predict(video), atol=1e-5)
