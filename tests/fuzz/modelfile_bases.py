"""Small sound model files of every encoding, of a second stage and neighbours, and of most architectures."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.encodings import PARTS, encode_plain
from topgb.modelfile.header import TensorEncoding
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.models.reranker import Reranker, RerankerOptions
from topgb.quantizing.schemes import Scheme, encode

CLASSES = 3
FRAMES = FeatureSpec("frame", (Feature("rgb", 4), Feature("extra", 2, "float32")))
BYTES = FeatureSpec("frame", (Feature("rgb", 4),))
VECTORS = FeatureSpec("video", (Feature("mean_rgb", 16, "float32"),))

_PLAIN = {"aggregator": "average", "features": ["rgb"], "head": {"name": "logistic"}}
_ARCHITECTURES = [
    {"aggregator": "netvlad", "clusters": {"rgb": 2, "extra": 1}, "hidden": 2, "head": {"name": "moe", "low_rank": 1}},
    {"aggregator": "netfv", "clusters": 2, "hidden": 2, "head": {"name": "moe"}},
    {"aggregator": "nextvlad", "clusters": 2, "groups": 2, "hidden": 4, "reduction": 2, "head": {"name": "logistic"}},
    {"aggregator": "attention", "hidden": 2, "attend_to_padding": True, "max_frames": 3, "head": {"name": "logistic"}},
    {"aggregator": "bigru", "cells": 2, "head": {"name": "logistic"}},
    {"aggregator": "lstm", "cells": 2, "layers": 1, "head": {"name": "mlp", "width": 2}, "mixture": 2},
    {"aggregator": "soft_dbof", "clusters": 2, "hidden": 2, "head": {"name": "logistic"}},
]
_NEIGHBOURS = {"aggregator": "average", "head": {"name": "neighbours", "videos": 3, "labels": 4, "most_labels": 2}}
_SCHEMES = [
    *(Scheme("uniform"), Scheme("kmeans"), Scheme("int8"), Scheme("entropy", step=0.01)),
    *(Scheme("groups", 3, 8), Scheme("float16")),
]


@dataclass(frozen=True)
class Stored:
    """One tensor as safetensors has it: dtype by its name there, shape, bytes."""

    dtype: str
    shape: list[int]
    data: bytes


@dataclass(frozen=True)
class Base:
    """A model file in its pieces: the `topgb` header as JSON text, and the stored tensors."""

    header: str
    tensors: dict[str, Stored]


def joined(header: str, tensors: dict[str, Stored]) -> tuple[bytes, bytes]:
    """The header and the data of the safetensors file of these pieces."""
    entries: dict[str, Any] = {"__metadata__": {"topgb": header}}
    end = 0
    for name, stored in tensors.items():
        start, end = end, end + len(stored.data)
        entries[name] = {"dtype": stored.dtype, "shape": stored.shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8), b"".join(stored.data for stored in tensors.values())


def file_bytes(base: Base) -> bytes:
    header, data = joined(base.header, base.tensors)
    return len(header).to_bytes(8, "little") + header + data


def make_bases(folder: Path) -> list[Base]:
    """The base files, written in `folder` on the way; each one loads."""
    torch.manual_seed(0)
    path = folder / "base.safetensors"
    bases = [_base(path, BYTES, [_PLAIN], [scheme]) for scheme in (None, *_SCHEMES)]
    bases.append(_base(path, VECTORS, [{"aggregator": "average", "head": {"name": "mlp", "width": 16}}], _SCHEMES))
    bases.append(_base(path, BYTES, [_PLAIN], [None], RerankerOptions(embedding=2, width=4, heads=2, candidates=2)))
    bases.append(_base(path, BYTES, [_NEIGHBOURS], [Scheme("float16")]))
    bases.append(_base(path, BYTES, [_PLAIN, _NEIGHBOURS], _SCHEMES))
    bases += [_base(path, FRAMES, [section], _SCHEMES[2:]) for section in _ARCHITECTURES]
    return bases


def _base(
    path: Path,
    spec: FeatureSpec,
    sections: list[dict],
    schemes: list[Scheme | None],
    second: RerankerOptions | None = None,
) -> Base:
    entries: dict[str, TensorEncoding] = {}
    tensors: dict[str, torch.Tensor] = {}
    members = []
    for index, section in enumerate(sections):
        config = parse_model(section)
        more_entries, more_tensors = encode_member(index, build_tagger(spec, CLASSES, config).state_dict())
        entries |= more_entries
        tensors |= more_tensors
        members.append(Member(1 / len(sections), config))
    matrices = [name for name, entry in entries.items() if len(entry.shape) == 2 and entry.encoding != "int32"]
    for name, scheme in zip(matrices, itertools.cycle(schemes), strict=False):
        if scheme is not None:
            entries[name], parts = encode(tensors.pop(name), scheme)
            tensors |= {name + suffix: part.contiguous() for suffix, part in parts.items()}
    if second is not None:
        for name, value in Reranker(CLASSES, second).state_dict().items():
            entries[f"reranker.{name}"], parts = encode_plain(value, "float16")
            tensors[f"reranker.{name}"] = parts[""]
    header = Header(spec, CLASSES, tuple(members), entries, ("a", "b", "c"), {"step": 1}, second)
    write_model_file(path, header, tensors, force=True)
    return parsed(path.read_bytes())


def parsed(raw: bytes) -> Base:
    """The pieces of a sound file."""
    size = int.from_bytes(raw[:8], "little")
    outer, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    header = outer.pop("__metadata__")["topgb"]
    return Base(
        header,
        {
            name: Stored(entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in outer.items()
        },
    )


ENCODINGS = tuple(PARTS)
