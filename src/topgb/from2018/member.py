"""One model of a 2018 checkpoint: which of its variables are whose, and what they make."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topgb.errors import InputError, option
from topgb.features import FeatureSpec
from topgb.from2018.checkpoint import TF1Checkpoint
from topgb.from2018.quantised import Coded, group_stored, read_stored, stored_shape, trained_name
from topgb.from2018.settings import FLAGS_FILE, architecture
from topgb.from2018.variables import encoded_from_variables
from topgb.modelfile.encodings import Parts
from topgb.modelfile.header import TensorEncoding
from topgb.models import ModelConfig, build_tagger
from topgb.models.initial_values import unfilled

TOWER = "tower/"
SHADOW = "/ExponentialMovingAverage"
# What Adam keeps beside a variable, and what a graph counts.
SLOTS = ("/Adam", "/Adam_1")
COUNTERS = frozenset({"global_step", "beta1_power", "beta2_power"})
_IMPOSSIBLE = "the sizes of its variables and features make no model"


@dataclass(frozen=True)
class MemberVariables:
    """A model's variables by their names without the scope.

    stored    what is stored of each that can be a weight: raw, or its moving average where `averaged`
    shapes    shapes of all that the model has, be they among `stored` or not
    """

    stored: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[int, ...]]
    averaged: bool


@dataclass(frozen=True)
class ImportedMember:
    """A model read.

    scope    `model_0/` in a merged checkpoint, empty in another
    tensors  encodings and parts by the names of our tensors
    origin   JSON values that say what it was made of
    used     full names of the variables that went into it, as they were trained
    """

    scope: str
    spec: FeatureSpec
    config: ModelConfig
    classes: int
    tensors: dict[str, tuple[TensorEncoding, Parts]]
    origin: dict[str, Any]
    used: set[str]


def member_variables(checkpoint: TF1Checkpoint, scope: str, use_ema: bool) -> MemberVariables:
    """The variables of the model under `scope`: its moving averages where they are wanted and there are any.

    The moving averages may be of some variables only. The shapes are then of all of them, for a variable that seems not
    to be there could make another architecture of it.
    """
    tower = scope + TOWER
    stored = group_stored((name for name in checkpoint.names() if name.startswith(tower)), str(checkpoint.prefix))
    ours = {name.removeprefix(tower): parts for name, parts in stored.items()}
    raw = {short: parts for short, parts in ours.items() if not short.endswith((SHADOW, *SLOTS))}
    shadows = {short.removesuffix(SHADOW): parts for short, parts in ours.items() if short.endswith(SHADOW)}
    averaged = use_ema and bool(shadows)
    weights, known = (shadows, {**raw, **shadows}) if averaged else (raw, raw)
    shapes = {short: stored_shape(checkpoint, parts) for short, parts in known.items()}
    return MemberVariables(weights, shapes, averaged)


def read_member(
    checkpoint: TF1Checkpoint, scope: str, model: str, flags: dict[str, Any], variables: MemberVariables
) -> ImportedMember:
    """The model of the 2018 class `model` under `scope`.

    `flags` are the checkpoint's file and settings. Raises `InputError` where these, the class and the variables do not
    go together, or a variable cannot be read.
    """
    read = _Reading(checkpoint, variables.stored)
    try:
        spec, config, classes = architecture(model, flags, variables.shapes)
        tagger = unfilled(lambda: build_tagger(spec, classes, config), _IMPOSSIBLE)
        tensors = encoded_from_variables(tagger, read)
    except InputError as error:
        if str(error).startswith(str(checkpoint.prefix)):
            raise
        hint = " among the moving averages" if variables.averaged and "is missing" in str(error) else ""
        what = f"{checkpoint.prefix}: {scope[:-1]}" if scope else f"{checkpoint.prefix}"
        raise InputError(
            f"{what} as {model}: {error}{hint}; check the class, {option('settings')} and {FLAGS_FILE}"
        ) from None
    origin = {
        "model": model,
        "flags": {key: value for key, value in sorted(flags.items()) if key != "model"},
        "weights": "ema" if variables.averaged else "raw",
        "step": _step(checkpoint, scope),
    }
    used = {trained_name(variables.stored[name][0]).removesuffix(SHADOW) for name in read.used}
    return ImportedMember(scope, spec, config, classes, tensors, origin, used)


def variable_of(stored_name: str) -> str:
    """The variable that a stored one is, or is the moving average or Adam's moment of."""
    name = trained_name(stored_name)
    return next((name.removesuffix(end) for end in (SHADOW, *SLOTS) if name.endswith(end)), name)


class _Reading(Mapping[str, np.ndarray | Coded]):
    """A model's variables by their names without the scope, read when asked for, with a note of which were."""

    def __init__(self, checkpoint: TF1Checkpoint, stored: Mapping[str, tuple[str, ...]]):
        self.checkpoint, self.stored, self.used = checkpoint, stored, set[str]()

    def __getitem__(self, name: str) -> np.ndarray | Coded:
        self.used.add(name)
        return read_stored(self.checkpoint, self.stored[name])

    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def _step(checkpoint: TF1Checkpoint, scope: str) -> int | None:
    entry = checkpoint.entries.get(f"{scope}global_step")
    if entry is None or entry.shape or entry.dtype is None or entry.dtype.kind != "i":
        return None
    return int(checkpoint.read(f"{scope}global_step"))
