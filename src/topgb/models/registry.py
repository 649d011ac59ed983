"""The registry of architectures: one decorator registers an aggregator or a head.

Every file of this package is imported automatically: to add an architecture, add a file.
"""

import importlib
import os
import pkgutil
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.models.options import Options, or_meant


class Aggregator(Protocol):
    """Frames to one vector per video; an `nn.Module`.

    `forward(frames float [B, T, D], num_frames int [B]) -> float [B, out_features]` must not depend on frames past
    `num_frames`. An aggregator with a true attribute `pads_to_max_frames` does depend on them, as some of 2018 did, and
    always receives `max_frames` frames.
    """

    Options: type[Options]
    out_features: int

    def __init__(self, spec: FeatureSpec, options: Any): ...
    def __call__(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor: ...


class Head(Protocol):
    """One vector per video to probabilities; an `nn.Module`.

    `forward(vectors float [B, in_features]) -> float32 [B, classes]` in [0, 1]; `regularization()` is the
    scalar that training adds to the loss; `start_at(frequencies float [classes])` sets the biases so that
    an untrained head predicts about these class frequencies. A head that cannot be trained has `trained = False`.
    """

    Options: type[Options]

    def __init__(self, in_features: int, classes: int, options: Any): ...
    def __call__(self, vectors: torch.Tensor) -> torch.Tensor: ...
    def regularization(self) -> torch.Tensor: ...
    def start_at(self, frequencies: torch.Tensor) -> None: ...


_AGGREGATORS: dict[str, Any] = {}
_HEADS: dict[str, Any] = {}

# Keys of a recipe's `model` section that are not an aggregator's options.
RESERVED_KEYS = frozenset({"aggregator", "head", "features", "normalization", "max_frames", "mixture"})


def aggregator(name: str) -> Callable[[Any], Any]:
    """Register a class as the aggregator `name`. Its options share the `model` section with `RESERVED_KEYS`."""

    def register(cls: Any) -> Any:
        clash = RESERVED_KEYS & set(cls.Options.model_fields)
        if clash:
            raise TypeError(f"aggregator {name!r} has options with reserved names: {', '.join(sorted(clash))}")
        return _register(_AGGREGATORS, name, cls)

    return register


def head(name: str) -> Callable[[Any], Any]:
    """Register a class as the head `name`."""
    return lambda cls: _register(_HEADS, name, cls)


def aggregators() -> dict[str, Any]:
    """Every registered aggregator by name."""
    _import_all()
    return dict(sorted(_AGGREGATORS.items()))


def heads() -> dict[str, Any]:
    """Every registered head by name."""
    _import_all()
    return dict(sorted(_HEADS.items()))


def find_aggregator(name: str) -> Any:
    """The aggregator registered as `name`. Raises `InputError` with the known names where there is none."""
    return _find("aggregator", name, aggregators())


def find_head(name: str) -> Any:
    """The head registered as `name`. Raises `InputError` with the known names where there is none."""
    return _find("head", name, heads())


def _find(kind: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise InputError(f"there is no {kind} {name!r}{or_meant(name, list(table))} there are: {', '.join(table)}")
    return table[name]


def _register(table: dict[str, Any], name: str, cls: Any) -> Any:
    if name in table:
        raise TypeError(f"{name!r} is registered twice")
    if not issubclass(cls, nn.Module):
        raise TypeError(f"{name!r} is not an nn.Module")
    table[name] = cls
    return cls


def _import_all() -> None:
    for module in pkgutil.iter_modules([os.path.dirname(__file__)]):
        importlib.import_module(f"{__package__}.{module.name}")
