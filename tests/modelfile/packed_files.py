"""Model files whose matrices are stored in few bits."""

from pathlib import Path

import torch

from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.quantizing.schemes import Scheme, encode

SPEC = FeatureSpec("video", (Feature("rgb", 300, "float32"),))
CLASSES = 401
SCHEMES = {
    "int8": Scheme("int8"),
    "int8_zlib": Scheme("entropy", step=0.05),
    "uniform codebook": Scheme("uniform"),
    "k-means codebook": Scheme("kmeans"),
    "groups of 4 bits": Scheme("groups", 4, 32),
    "groups of 5 bits": Scheme("groups", 5, 64),
}


def write_file(path: Path, scheme: Scheme | None, **model) -> tuple[Header, dict[str, torch.Tensor]]:
    """A model file with every matrix as `scheme` stores it, and what it holds."""
    config = parse_model({"aggregator": "average", "head": {"name": "mlp", "width": 513}, **model})
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, CLASSES, config)
    entries, tensors = encode_member(0, tagger.state_dict())
    for name in [n for n, entry in entries.items() if len(entry.shape) == 2 and scheme is not None]:
        entries[name], parts = encode(tensors.pop(name), scheme)
        tensors |= {name + suffix: part for suffix, part in parts.items()}
    header = Header(SPEC, CLASSES, (Member(1.0, config),), entries)
    write_model_file(path, header, tensors, force=True)
    return header, tensors
