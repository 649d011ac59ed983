"""Small model files of `SMALL_SPEC`, with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.modelfile import Header, Member, read_model_file, write_model_file
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.quantizing.schemes import Scheme, encode

DBOF: dict[str, Any] = {"aggregator": "dbof", "clusters": 24, "hidden": 16, "dropout": 0.1, "head": {"name": "moe"}}
AUDIO: dict[str, Any] = {"aggregator": "average", "features": ["audio"], "head": {"name": "mlp", "width": 8}}


def model_file(path: Path, section: dict[str, Any] = DBOF, seed: int = 0, **header: Any) -> Path:
    """A model of one member; `header` overrides fields of its header."""
    config = parse_model(section)
    value = {"features": SMALL_SPEC, "classes": SMALL_CLASSES, **header}
    torch.manual_seed(seed)
    tagger = build_tagger(value["features"], value["classes"], config)
    with torch.no_grad():
        for name, tensor in tagger.state_dict().items():
            # Batch norms that have seen data.
            tensor.add_(0.3 * torch.randn_like(tensor) if not name.endswith("running_var") else torch.rand_like(tensor))
    entries, tensors = encode_member(0, tagger.state_dict())
    write_model_file(path, Header(members=(Member(1.0, config),), tensors=entries, **value), tensors)
    return path


def stored_as(path: Path, out: Path, scheme: Scheme) -> Path:
    """The model with every matrix encoded by `scheme`."""
    header, stored = read_model_file(path)
    entries, tensors = {}, {}
    for name, entry in header.tensors.items():
        entries[name], tensors[name] = entry, stored[name]
        if len(entry.shape) == 2:
            entries[name], parts = encode(tensors.pop(name), scheme, name=name)
            tensors |= {name + suffix: part.contiguous() for suffix, part in parts.items()}
    write_model_file(out, Header(header.features, header.classes, header.members, entries), tensors)
    return out


def videos(count: int = 9) -> np.ndarray:
    """Stored features uint8 [count, 6, D]."""
    return np.random.default_rng(0).integers(0, 256, (count, 6, SMALL_SPEC.width), dtype=np.uint8)
