"""Several models in one file: their predictions' weighted mean, in one pass over the data."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from topgb.combining.parents import Parent, class_names, open_parents, origin, sha256
from topgb.errors import InputError
from topgb.files import refuse_existing
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.encodings import part_names
from topgb.modelfile.header import MOST_MEMBERS, TensorEncoding

# As the format wants it, and as 2018.
TOLERANCE = 1e-4


def ensemble(
    paths: Sequence[Path],
    weights: Sequence[float] | None,
    out: Path,
    force: bool = False,
    scores: dict[str, Any] | None = None,
) -> Header:
    """Write one file whose prediction is Σ weight · prediction of `paths` (2018: `graph_ensemble.py`).

    `weights` None are equal ones. Models may be of any family and encoding, and ensembles themselves; their tensors
    are carried over as they lie. A model of weight 0 is left out (2018 kept it, and its bytes). `scores` (JSON values)
    go into the file's origin. Raises `InputError` where `out` exists, there is one model only, weights are not one a
    model, negative, or do not sum to 1 within 1e-4, a file is broken, or feature specs, classes or class names differ.
    """
    refuse_existing(out, force)
    shares = checked_weights([1.0 / len(paths)] * len(paths) if weights is None else weights, len(paths))
    parents = open_parents(paths, "make an ensemble")
    kept = [(share, parent) for share, parent in zip(shares, parents, strict=True) if share > 0]
    members: list[Member] = []
    entries: dict[str, TensorEncoding] = {}
    tensors: dict[str, torch.Tensor] = {}
    for share, parent in kept:
        carry_over(parent, len(members), entries, tensors)
        members += [Member(share * member.weight, member.model) for member in parent.header.members]
    if len(members) > MOST_MEMBERS:
        raise InputError(f"the models have {len(members)} members together; a file may have {MOST_MEMBERS}")
    named = [{**sha256(parent), "weight": share} for share, parent in kept]
    header = Header(
        features=parents[0].header.features,
        classes=parents[0].header.classes,
        members=_normalised(members),
        tensors=entries,
        class_names=class_names(parents),
        origin=origin("ensemble", named, **({} if scores is None else {"scores": scores})),
    )
    write_model_file(out, header, tensors, force)
    return header


def checked_weights(weights: Sequence[float], models: int) -> list[float]:
    """The weights, scaled to sum to 1 exactly.

    Raises `InputError` where they are not one for each model, not finite, negative, or off 1 by more than 1e-4.
    """
    if len(weights) != models:
        raise InputError(f"there are {len(weights)} weights for {models} models; name one for each model, in order")
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise InputError(f"the weight {weight:g} is not a number from 0 to 1; give shares such as 0.7,0.3")
    total = math.fsum(weights)
    if abs(total - 1.0) > TOLERANCE:
        raise InputError(f"the weights sum to {total:g}, not 1; scale them so that they do")
    return [weight / total for weight in weights]


def carry_over(
    parent: Parent, start: int, entries: dict[str, TensorEncoding], tensors: dict[str, torch.Tensor]
) -> None:
    """Add the parent's tensors, as they lie, under the names of members from `start` on."""
    for old, entry in parent.header.tensors.items():
        _, index, name = old.split(".", 2)
        new = f"members.{start + int(index)}.{name}"
        entries[new] = entry
        for part in part_names(old, entry):
            tensors[new + part[len(old) :]] = parent.stored[part]


def _normalised(members: Sequence[Member]) -> tuple[Member, ...]:
    # Parents may be off 1 by as much as the format allows, and would be further off together.
    total = math.fsum(member.weight for member in members)
    return tuple(Member(member.weight / total, member.model) for member in members)
