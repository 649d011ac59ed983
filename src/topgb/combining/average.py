"""The mean of the weights of several models of one shape."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from topgb.combining.parents import class_names, named, open_parents, origin, refuse_difference, shared_extras
from topgb.errors import InputError
from topgb.files import refuse_existing
from topgb.modelfile import Header, StoredModel, write_model_file
from topgb.modelfile.encodings import Parts, decode, encode_plain
from topgb.modelfile.header import TensorEncoding

# Options that act in training only: models that differ in these alone have the same shape (docs/model-file.md).
TRAINING_ONLY = {"dropout", "input_dropout", "l2", "count_padding"}


def average(models: Sequence[Path | StoredModel], out: Path, force: bool = False) -> Header:
    """Write the mean of the models' weights and batch-norm statistics, in float32 (2018: `weights_average.py`).

    The models may be stored in any encoding; sums are computed in float64. Options that act in training only are taken
    from the first model. Raises `InputError` if `out` exists, only one model is given, a file is broken or remembers
    videos, or the models differ in features, classes, class names, members' weights, an option or a tensor's shape; the
    message names the difference.
    """
    refuse_existing(out, force, "a model")
    parents = open_parents(models, "average")
    first = parents[0]
    if any(entry.encoding == "int32" for entry in first.header.tensors.values()):
        raise InputError(f"{first.path} remembers videos, which have no mean; average the models it was made from")
    for parent in parents[1:]:
        refuse_difference(first, parent, _shape(first.header), _shape(parent.header))
    entries: dict[str, TensorEncoding] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name in first.header.tensors:
        entries[name], parts = _mean(parents, name)
        tensors[name] = parts[""]
    header = Header(
        features=first.header.features,
        classes=first.header.classes,
        members=first.header.members,
        tensors=entries,
        class_names=class_names(parents),
        origin=origin("average", [named(parent) for parent in parents]),
        extras=shared_extras(parents),
    )
    write_model_file(out, header, tensors, force)
    return header


def _mean(parents: Sequence[StoredModel], name: str) -> tuple[TensorEncoding, Parts]:
    # One tensor at a time: decoding all models at once could exceed the memory.
    total = torch.zeros(parents[0].header.tensors[name].shape, dtype=torch.float64)
    for parent in parents:
        total += decode(parent.tensors, parent.header.tensors[name], name)
    return encode_plain(total / len(parents), "float32")


def _shape(header: Header) -> dict[str, Any]:
    """Everything that averaged models must have in common: values by their name in messages."""
    members = {
        f"member {index}": {"weight": member.weight, **_without_training(member.model.to_json())}
        for index, member in enumerate(header.members)
    }
    shapes = {f"tensor {name!r}": list(entry.shape) for name, entry in sorted(header.tensors.items())}
    return {"number of members": len(header.members), **members, **shapes}


def _without_training(options: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_training(value) if isinstance(value, dict) else value
        for key, value in options.items()
        if key not in TRAINING_ONLY
    }
