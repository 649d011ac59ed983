"""The members of a graph that 2018's `graph_ensemble.py` merged: `model_0/tower/…`, `model_1/tower/…`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from topgb.errors import InputError, option
from topgb.from2018.checkpoint import TF1Checkpoint
from topgb.modelfile.header import MOST_MEMBERS, weights_fault

_MEMBER = re.compile(r"model_(0|[1-9]\d{0,8})(?=/)")
_SETTING = re.compile(r"model_(\d{1,9})\.(.+)", re.DOTALL)


def member_scopes(checkpoint: TF1Checkpoint) -> list[str]:
    """The members' scopes in their order, `model_0/`, `model_1/`, …; one empty scope for a single model.

    Raises `InputError` if a member is missing or is itself merged, or if there is a model beside the members.
    """
    names, source = checkpoint.names(), str(checkpoint.prefix)
    numbers = sorted({int(match[1]) for name in names if (match := _MEMBER.match(name))})
    if not numbers:
        return [""]
    if any(_MEMBER.match(name.partition("/")[2]) for name in names if _MEMBER.match(name)):
        raise InputError(f"{source} merges models that are merged themselves; import those they were merged from")
    if any(name.startswith("tower/") for name in names):
        raise InputError(f"{source} holds merged models and one more beside them (tower/…); save one or the others")
    missing = next((place for place, number in enumerate(numbers) if place != number), None)
    if missing is not None:
        raise InputError(f"{source} holds model_{numbers[-1]} but no model_{missing}; save all merged models in it")
    if len(numbers) > MOST_MEMBERS:
        raise InputError(f"{source} merges {len(numbers)} models; a model file has at most {MOST_MEMBERS} members")
    return [f"model_{number}/" for number in numbers]


def mixture_weights(weights: Sequence[float] | None, scopes: list[str], source: str) -> list[float]:
    """One weight per member: `weights` for a merged checkpoint, 1 for a single model.

    Raises `InputError` if `weights` do not fit the number of members in `source`, or are not the weights of a mean.
    """
    if scopes == [""]:
        if weights is not None:
            raise InputError(f"{source} is one model, not several merged ones; leave out {option('weights')}")
        return [1.0]
    merged = f"{source} merges {len(scopes)} model{'s' if len(scopes) > 1 else ''}"
    if weights is None:
        raise InputError(
            f"{merged}, and their weights are not in it; give {len(scopes)} that sum to 1, in the order in which they "
            f"were merged: {option('weights', ('W0', 'W1', '…')[: len(scopes)])}"
        )
    if len(weights) != len(scopes):
        raise InputError(
            f"{merged}, but {option('weights')} has {len(weights)}; give one for each, in the order of merging"
        )
    fault = weights_fault(weights)
    if fault is not None:
        raise InputError(f"{fault}; give each member its share in {option('weights')}")
    return list(weights)


def settings_of_members(settings: Mapping[str, Any], scopes: list[str]) -> list[dict[str, Any]]:
    """The settings of each member: those for all, overridden by its own, where `model_1.KEY` is KEY of member 1.

    Raises `InputError` if there is no such member, or if KEY must be the same for all members.
    """
    common: dict[str, Any] = {}
    own: list[dict[str, Any]] = [{} for _ in scopes]
    for key, value in settings.items():
        match = _SETTING.fullmatch(key)
        if match is None:
            common[key] = value
            continue
        number, name = int(match[1]), match[2]
        if scopes == [""] or number >= len(scopes):
            there = "it is one model" if scopes == [""] else f"its members are model_0 to model_{len(scopes) - 1}"
            raise InputError(f"{key!r} is of a member that the checkpoint has not: {there}")
        if name in ("feature_names", "feature_sizes", "frame_features"):
            raise InputError(f"{key!r} cannot be one member's: merged models take the same features; set {name!r}")
        own[number][name] = value
    return [{**common, **mine} for mine in own]
