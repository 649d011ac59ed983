"""Put several models into one file, which predicts their weighted mean in one pass over the data."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from topgb.combining.parents import class_names, named, open_parents, origin, shared_extras
from topgb.errors import InputError, option
from topgb.files import refuse_existing
from topgb.modelfile import Header, Member, StoredModel, write_model_file
from topgb.modelfile.encodings import part_names
from topgb.modelfile.header import MOST_MEMBERS, TensorEncoding, weights_fault


def ensemble(
    models: Sequence[Path | StoredModel],
    weights: Sequence[float] | None,
    out: Path,
    force: bool = False,
    scores: dict[str, Any] | None = None,
) -> Header:
    """Write one file whose prediction is Σ weight · prediction of `models` (2018: `graph_ensemble.py`).

    With `weights` None all weights are equal. Models may have any architecture and encoding, and may be ensembles
    themselves; their stored tensors are copied unchanged. A model of weight 0 is left out (2018 kept it, and its
    bytes). `scores` (JSON values) go into the file's origin.

    Raises `InputError` if `out` exists, only one model is given, `checked_weights` refuses the weights, a file is
    broken, or feature specs, classes or class names differ.
    """
    refuse_existing(out, force, "a model")
    shares = checked_weights([1.0 / len(models)] * len(models) if weights is None else weights, len(models))
    parents = open_parents(models, "make an ensemble")
    kept = [(share, parent) for share, parent in zip(shares, parents, strict=True) if share > 0]
    members: list[Member] = []
    entries: dict[str, TensorEncoding] = {}
    tensors: dict[str, torch.Tensor] = {}
    for share, parent in kept:
        carry_over(parent, len(members), entries, tensors)
        members += [Member(share * member.weight, member.model) for member in parent.header.members]
    if len(members) > MOST_MEMBERS:
        raise InputError(f"the models have {len(members)} members together; a file may have {MOST_MEMBERS}")
    weighted = [{**named(parent), "weight": share} for share, parent in kept]
    header = Header(
        features=parents[0].header.features,
        classes=parents[0].header.classes,
        members=_normalised(members),
        tensors=entries,
        class_names=class_names(parents),
        origin=origin("ensemble", weighted, **({} if scores is None else {"scores": scores})),
        extras=shared_extras(parents),
    )
    write_model_file(out, header, tensors, force)
    return header


def checked_weights(weights: Sequence[float], models: int) -> list[float]:
    """The weights, scaled to sum to 1 exactly.

    Raises `InputError` unless there is one weight per model, each finite and not negative, with a sum of 1 ± 1e-4.
    """
    if len(weights) != models:
        raise InputError(f"there are {len(weights)} weights for {models} models; name one for each model, in order")
    if not all(isinstance(weight, int | float) for weight in weights):
        raise InputError(f"{option('weights')} {list(weights)!r} are not numbers; give shares that sum to 1")
    fault = weights_fault(weights)
    if fault is not None:
        raise InputError(f"{fault}; give shares that sum to 1 in {option('weights')}, such as 0.7,0.3")
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def carry_over(
    parent: StoredModel, start: int, entries: dict[str, TensorEncoding], tensors: dict[str, torch.Tensor]
) -> None:
    """Add the parent's stored tensors unchanged to `entries` and `tensors`, its members numbered from `start`."""
    for old, entry in parent.header.tensors.items():
        _, index, name = old.split(".", 2)
        new = f"members.{start + int(index)}.{name}"
        entries[new] = entry
        for part in part_names(old, entry):
            tensors[new + part[len(old) :]] = parent.tensors[part]


def _normalised(members: Sequence[Member]) -> tuple[Member, ...]:
    # The format lets the weights of each parent be a little off 1; together they could be off by more than it allows.
    total = math.fsum(member.weight for member in members)
    return tuple(Member(member.weight / total, member.model) for member in members)
