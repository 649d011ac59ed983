"""A second reader of the model file, written from docs/model-file.md alone: bytes, JSON and NumPy, no topgb.

If the page stops being true, this reader stops agreeing with the first.
"""

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Columns = dict[str, slice]


class SecondReader:
    """`predict` takes one video's stored features [T, D], all rows its own, to probabilities [V]."""

    def __init__(self, path: Path):
        raw = path.read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        outer = json.loads(raw[8 : 8 + size])
        self.header = json.loads(outer.pop("__metadata__")["topgb"])
        assert self.header["version"] == (3 if "extras" in self.header else 2 if self.header.get("reranker") else 1)
        self._stored = {}
        for name, entry in outer.items():
            start, stop = entry["data_offsets"]
            part = raw[8 + size + start : 8 + size + stop]
            if entry["dtype"] == "BF16":
                # The upper half of a float32.
                values = (np.frombuffer(part, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                dtypes = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "I8": np.int8, "I32": np.int32}
                values = np.frombuffer(part, dtypes[entry["dtype"]])
            self._stored[name] = values.reshape(entry["shape"])
        self.tensors = {name: self._decoded(name, entry) for name, entry in self.header["tensors"].items()}
        assert not self._stored, "the file holds these tensors and no others"
        self.used: set[str] = set()

    def _decoded(self, name: str, entry: dict) -> np.ndarray:
        def part(suffix: str) -> np.ndarray:
            return self._stored.pop(name + suffix)

        shape = entry["shape"]
        rows, columns = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))
        match entry["encoding"]:
            case "int32":
                values = part("")
            case "float32" | "float16":
                values = part("").astype(np.float64)
            case "codebook":
                values = part(".codebook").astype(np.float64)[part(".codes")]
            case "int8":
                values = part(".codes")[:, :columns] * part(".scales").astype(np.float64)[:, None]
            case "int8_zlib":
                codes = np.frombuffer(zlib.decompress(part(".codes").tobytes()), np.int8).reshape(rows, columns)
                values = codes * part(".scales").astype(np.float64)[:, None]
            case "groups":
                bits, packed = entry["bits"], part(".codes").tobytes()
                runs = [int.from_bytes(packed[i : i + bits], "little") for i in range(0, len(packed), bits)]
                codes = np.array([run >> (bits * i) & ((1 << bits) - 1) for run in runs for i in range(8)])
                scales, minima = (part(suffix).astype(np.float64)[:, None] for suffix in (".scales", ".minima"))
                values = (codes.reshape(-1, entry["group"]) * scales + minima).ravel()[: rows * columns]
        return values.reshape(shape)

    def predict(self, video: np.ndarray) -> np.ndarray:
        members = enumerate(self.header["members"])
        mixed = sum(member["weight"] * self._member(f"members.{i}.", member["model"], video) for i, member in members)
        return self._reranked(self.header["reranker"], mixed) if self.header.get("reranker") else mixed

    def _reranked(self, o: dict, mixed: np.ndarray) -> np.ndarray:
        best = np.argsort(-mixed)[: o["candidates"]]
        p, k = mixed[best], len(best)
        q = np.clip(p, 1e-6, 1 - 1e-6)
        z = np.log(q / (1 - q))
        figures = [z / 4, np.arange(k) / k, (z - z[0]) / 4, p, np.full(k, p.sum() / 4)]
        embedding, bias = self._get("reranker.embedding.weight")[best], self._get("reranker.bias.weight")[best, 0]
        x = self._linear("reranker.enter", np.hstack([embedding, np.stack(figures, 1)]), True)
        for j in range(o["layers"]):
            block = f"reranker.blocks.{j}."
            joined = self._linear(block + "query_key_value", self._layer_norm(block + "attention_norm", x), True)
            query, key, value = joined.reshape(k, 3, o["heads"], -1).transpose(1, 2, 0, 3)
            share = _softmax(query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]))
            x = x + self._linear(block + "attended", (share @ value).transpose(1, 0, 2).reshape(k, -1), True)
            wide = self._linear(block + "widen", self._layer_norm(block + "hidden_norm", x), True)
            normal = np.vectorize(lambda value: 0.5 * (1 + math.erf(value / math.sqrt(2))))
            x = x + self._linear(block + "narrow", wide * normal(wide), True)
        new = mixed.copy()
        new[best] = _sigmoid(z + self._linear("reranker.leave", x, True)[:, 0] + bias)
        return new

    def _layer_norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self._get(name + ".weight") + self._get(name + ".bias")

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
        if model.get("mixture", 1) > 1:
            return self._mixture(prefix, model, rows, columns)
        return self._classified(prefix, "", model, rows, columns)

    def _classified(self, prefix: str, place: str, model: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        vector = getattr(self, model["aggregator"])(f"{prefix}aggregator.{place}", model, rows, columns)
        return getattr(self, model["head"]["name"])(f"{prefix}head.{place}", model["head"], vector)

    def _mixture(self, prefix: str, model: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        g = _softmax(self._linear(prefix + "head.gate", self._bn(prefix + "head.gate_norm", rows.mean(0)), True))
        logit = 0
        for j in range(model["mixture"]):
            q = np.clip(self._classified(prefix, f"members.{j}.", model, rows, columns), 1e-7, 1 - 1e-7)
            logit = logit + g[j] * np.log(q / (1 - q))
        return _sigmoid(logit)

    # Aggregators: tensor name prefix, options, rows [n, D'] and where each feature lies in them, to a vector.

    def average(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        mean = rows.mean(0)
        return np.concatenate([mean, np.sqrt(((rows - mean) ** 2).mean(0) + 1e-12)]) if o["std"] else mean

    def dbof(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        bn, linear = self._batch_norm(o["batch_norm"]), self._linear
        units = _relu6(bn(p + "project_norm", linear(p + "project", bn(p + "input_norm", rows), not o["batch_norm"])))
        pooled = {"max": units.max, "average": units.mean}[o["pooling"]](0)
        return _relu6(bn(p + "hidden_norm", linear(p + "hidden", pooled, not o["batch_norm"])))

    def netvlad(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        def pool(q: str, name: str, x: np.ndarray, a: np.ndarray) -> list[np.ndarray]:
            v = x.T @ a - (0 if o["light"] else a.sum(0) * self._get(q + "centres"))
            return [_unit(_unit(v, axis=0).ravel())]

        return self._pooled(p, o, rows, columns, pool)

    def netfv(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        def pool(q: str, name: str, x: np.ndarray, a: np.ndarray) -> list[np.ndarray]:
            s = self._get(q + "deviations") ** 2 + 1e-6
            uncoupled = o["coupling"] is None
            c = self._get(q + "centres") if uncoupled else o["coupling"] * self._get(q + "assign.weight").T
            distance = x[:, :, None] - c
            first = (a[:, None] * distance / s).sum(0)
            second = (a[:, None] * (distance**2 / s**2 - 1)).sum(0)
            return [_unit(_unit(first, axis=0).ravel()), _unit(second.ravel())]

        return self._pooled(p, o, rows, columns, pool)

    def soft_dbof(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        return self._pooled(p, o, rows, columns, lambda q, name, x, a: _soft_bag(o, a))

    def gated_dbof(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        def pool(q: str, name: str, x: np.ndarray, a: np.ndarray) -> list[np.ndarray]:
            if o["gated"] is not None and name not in o["gated"]:
                return _soft_bag(o, a)
            narrow = self._linear(q + "reduce", _unit(a.max(0)), False)
            gate = self._linear(q + "expand", narrow, not o["batch_norm"])
            return [_unit(a.sum(0) * _sigmoid(self._batch_norm(o["batch_norm"])(q + "gate_norm", gate)))]

        return self._pooled(p, o, rows, columns, pool)

    def nextvlad(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        parts = []
        for name, where in columns.items():
            q = f"{p}pools.{name}."
            clusters, groups = (n if isinstance(n, int) else n[name] for n in (o["clusters"], o["groups"]))
            v = np.zeros((clusters, o["expansion"] * rows[:, where].shape[1] // groups))
            for x in rows[:, where]:
                e = self._linear(q + "expand", x, True)
                a = _sigmoid(self._linear(q + "attend", e, True))
                assigned = self._bn(q + "assign_norm", self._linear(q + "assign", e, False))
                assigned = _softmax(assigned.reshape(groups, clusters))
                distance = e.reshape(groups, 1, -1) - self._get(q + "centres")
                v += (a[:, None, None] * assigned[:, :, None] * distance).sum(0)
            parts.append(self._bn(q + "norm", _unit(v, axis=1).ravel()))
        h = self._bn(p + "hidden_norm", self._linear(p + "hidden", np.concatenate(parts), False))
        if o["reduction"] is None:
            return h
        narrow = np.maximum(self._bn(p + "gating.reduce_norm", self._linear(p + "gating.reduce", h, False)), 0)
        return h * _sigmoid(self._linear(p + "gating.expand", narrow, False))

    def attention(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        if o["attend_to_padding"]:
            rows = np.pad(rows, ((0, o["max_frames"] - len(rows)), (0, 0)))
        parts = []
        for name, where in columns.items():
            q = f"{p}pools.{name}."
            x = self._bn(q + "input_norm", rows[:, where])
            u = _relu6(self._bn(q + "norm", self._linear(q + "project", x, False)))
            a = _softmax(self._linear(q + "gate", x, False)[:, 0])
            parts.append(a @ u)
        return np.concatenate(parts)

    def lstm(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        for layer in range(o["layers"]):
            rows, _ = self._lstm_cell(f"{p}layers.{layer}.cells.0", rows)
        return rows[-1]

    def bilstm(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        forward, _ = self._lstm_cell(p + "both.cells.0", rows)
        backward, _ = self._lstm_cell(p + "both.cells.1", rows[::-1])
        _, state = self._lstm_cell(p + "top.cells.0", np.hstack([forward, backward[::-1]]))
        return state

    def bigru(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        h = self._two_layers(p + "layers.", o, rows)
        return h * _sigmoid(self._linear(p + "gating.gate", h, True)) if o["gating"] else h

    def branched_gru(self, p: str, o: dict, rows: np.ndarray, columns: Columns) -> np.ndarray:
        parts = []
        for name, where in columns.items():
            q = f"{p}branches.{name}."
            x = self._linear(q + "project", self._bn(q + "input_norm", rows[:, where]), False)
            parts.append(self._two_layers(q + "layers.", o, _relu6(self._bn(q + "norm", x))))
        return np.concatenate(parts)

    # Heads: tensor name prefix, options and a vector, to probabilities [V].

    def logistic(self, p: str, o: dict, v: np.ndarray) -> np.ndarray:
        return _sigmoid(self._linear(p + "output", v, True))

    def mlp(self, p: str, o: dict, v: np.ndarray) -> np.ndarray:
        return self.logistic(p + "logistic.", o, self._hidden(p, o, v))

    def _hidden(self, p: str, o: dict, v: np.ndarray) -> np.ndarray:
        h = self._bn(p + "norm", self._linear(p + "hidden", v, False))
        return {"relu": np.maximum(h, 0), "silu": h * _sigmoid(h)}[o["activation"]]

    def neighbours(self, p: str, o: dict, v: np.ndarray) -> np.ndarray:
        u = (v if o["width"] is None else self._hidden(p, o, v)) - self._get(p + "centre")
        alike = self._linear(p + "keys", u / np.sqrt((u**2).sum()), False)
        nearest = np.argsort(-alike)[: o["neighbours"]]
        shares = _softmax(alike[nearest] / o["temperature"])
        bounds, classes = self._get(p + "label_bounds"), self._get(p + "label_classes")
        found = np.zeros(self.header["classes"])
        for i, share in zip(nearest, shares, strict=True):
            found[classes[bounds[i] : bounds[i + 1]]] += share
        return np.minimum(found, 1)

    def moe(self, p: str, o: dict, v: np.ndarray) -> np.ndarray:
        classes = self.header["classes"]
        if o["low_rank"] is None:
            g = self._linear(p + "gates", v, False)
        else:
            g = self._linear(p + "gates.expand", self._linear(p + "gates.reduce", v, False), False)
        e = _sigmoid(self._linear(p + "experts", v, True)).reshape(classes, -1)
        probabilities = (_softmax(g.reshape(classes, -1))[:, :-1] * e).sum(1)
        if o["gating"] == "none":
            return probabilities
        z = probabilities if o["gating"] == "probabilities" else v
        gate = self._gate(p + "gating.gate", o, z, probabilities, False)
        return probabilities * _sigmoid(self._bn(p + "gating.norm", gate))

    # What several of them share.

    def _pooled(
        self,
        p: str,
        o: dict,
        rows: np.ndarray,
        columns: Columns,
        pool: Callable[[str, str, np.ndarray, np.ndarray], list[np.ndarray]],
    ) -> np.ndarray:
        """`pool` takes the prefix of a feature's names, its name, X [n, D] and A [n, K]."""
        bn, bias = self._batch_norm(o["batch_norm"]), not o["batch_norm"]
        rows = bn(p + "input_norm", rows)
        parts = []
        for name, where in columns.items():
            x, q = rows[:, where], f"{p}pools.{name}."
            parts += pool(q, name, x, _softmax(bn(q + "norm", self._linear(q + "assign", x, bias))))
        v = np.concatenate(parts)
        if o["hidden"] is None:
            return v
        if o["relu"]:
            h = _relu6(bn(p + "hidden_norm", self._linear(p + "hidden", v, bias)))
        else:
            h = self._linear(p + "hidden", v, True)
        if o["gating"]:
            h = h * _sigmoid(bn(p + "gating.norm", self._gate(p + "gating.gate", o, h, h, bias)))
        return h

    def _two_layers(self, p: str, o: dict, rows: np.ndarray) -> np.ndarray:
        cell = {"before": self._gru_before, "after": self._gru_after}[o["reset"]]
        forward, backward = (list(cell(p + "both.", d, r)) for d, r in (("0", rows), ("1", rows[::-1])))
        *_, h = cell(p + "top.", "0", np.hstack([forward, backward[::-1]]))
        return h

    def _lstm_cell(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [n, cells] and the last state [cells]."""
        h = s = np.zeros(self._get(name + ".bias").size // 4)
        outputs = []
        for x in rows:
            i, f, g, o = np.split(self._linear(name, np.concatenate([x, h]), True), 4)
            s = s * _sigmoid(f + 1) + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(s)
            outputs.append(h)
        return np.array(outputs), s

    def _gru_before(self, p: str, direction: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        h = np.zeros(self._get(f"{p}candidates.{direction}.bias").size)
        for x in rows:
            r, z = np.split(_sigmoid(self._linear(f"{p}gates.{direction}", np.concatenate([x, h]), True)), 2)
            u = np.tanh(self._linear(f"{p}candidates.{direction}", np.concatenate([x, r * h]), True))
            h = z * h + (1 - z) * u
            yield h

    def _gru_after(self, p: str, direction: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        h = np.zeros(self._get(f"{p}inputs.{direction}.bias").size // 3)
        for x in rows:
            a = np.split(self._linear(f"{p}inputs.{direction}", x, True), 3)
            b = np.split(self._linear(f"{p}recurrents.{direction}", h, True), 3)
            r, z = _sigmoid(a[0] + b[0]), _sigmoid(a[1] + b[1])
            u = np.tanh(a[2] + r * b[2])
            h = z * h + (1 - z) * u
            yield h

    def _get(self, name: str) -> np.ndarray:
        self.used.add(name)
        return self.tensors[name]

    def _linear(self, name: str, x: np.ndarray, bias: bool) -> np.ndarray:
        return x @ self._get(name + ".weight").T + (self._get(name + ".bias") if bias else 0)

    def _gate(self, name: str, o: dict, seen: np.ndarray, gated: np.ndarray, bias: bool) -> np.ndarray:
        diagonal = np.diag(self._get(name + ".weight")) * gated if o["gating_remove_diagonal"] else 0
        return self._linear(name, seen, bias) - diagonal

    def _bn(self, name: str, x: np.ndarray) -> np.ndarray:
        mean, variance, weight, bias = (
            self._get(f"{name}.{part}") for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(variance + 0.001) * weight + bias

    def _batch_norm(self, on: bool) -> Callable[[str, np.ndarray], np.ndarray]:
        return self._bn if on else lambda name, x: x


def _soft_bag(o: dict, a: np.ndarray) -> list[np.ndarray]:
    return [_unit(a.sum(0)), _unit(a.max(0))] if o["max_pool"] else [_unit(a.sum(0))]


def _unit(x: np.ndarray, axis: int | None = None) -> np.ndarray:
    return x / np.sqrt(np.maximum((x**2).sum(axis, keepdims=True), 1e-12))


def _relu6(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 6)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
