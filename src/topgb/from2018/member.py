"""One model of a 2018 checkpoint: find its variables and turn them into a member of a model file."""

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
# The suffixes of Adam's moments of a variable, and the names of a graph's counters.
SLOTS = ("/Adam", "/Adam_1")
COUNTERS = frozenset({"global_step", "beta1_power", "beta2_power"})
_IMPOSSIBLE = "the sizes of its variables and features make no model"


@dataclass(frozen=True)
class MemberVariables:
    """A model's variables by name, without the scope.

    stored    the stored names of each possible weight, or of its moving average if `averaged`
    shapes    the shapes of all the model's variables, whether they are in `stored` or not
    averaged  whether `stored` names moving averages
    """

    stored: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[int, ...]]
    averaged: bool


@dataclass(frozen=True)
class ImportedMember:
    """A model read from a checkpoint.

    scope    `model_0/` in a merged checkpoint, otherwise empty
    tensors  encodings and parts by the names of our tensors
    origin   JSON values that say where the model came from
    used     full trained names of the variables that the model was made from
    """

    scope: str
    spec: FeatureSpec
    config: ModelConfig
    classes: int
    tensors: dict[str, tuple[TensorEncoding, Parts]]
    origin: dict[str, Any]
    used: set[str]


def member_variables(checkpoint: TF1Checkpoint, scope: str, use_ema: bool) -> MemberVariables:
    """The variables of the model under `scope`: its moving averages if they are wanted and there are any.

    Some variables may have no moving average. `shapes` includes them all the same, because a variable that seemed to be
    missing could suggest another architecture.
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
    """Read the model of the 2018 class `model` under `scope`.

    `flags` are those of the checkpoint's file and of the settings. Raises `InputError` if flags, class and variables do
    not fit each other, or if a variable cannot be read.
    """
    read = _VariableReader(checkpoint, variables.stored)
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
            f"{what} as {model}: {error}{hint}; check the class, {option('set')} and {FLAGS_FILE}"
        ) from None
    origin = {
        "model": model,
        "flags": {key: value for key, value in sorted(flags.items()) if key != "model"},
        "weights": "ema" if variables.averaged else "raw",
        "step": _training_step(checkpoint, scope),
    }
    used = {trained_name(variables.stored[name][0]).removesuffix(SHADOW) for name in read.used}
    return ImportedMember(scope, spec, config, classes, tensors, origin, used)


def variable_of(stored_name: str) -> str:
    """The trained variable that a stored variable holds, or whose moving average or Adam moment it holds."""
    name = trained_name(stored_name)
    return next((name.removesuffix(end) for end in (SHADOW, *SLOTS) if name.endswith(end)), name)


class _VariableReader(Mapping[str, np.ndarray | Coded]):
    """A model's variables by name, without the scope; each is read when asked for, and `used` collects the names."""

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


def _training_step(checkpoint: TF1Checkpoint, scope: str) -> int | None:
    """The model's global step, or None if the checkpoint has none that is a whole number."""
    entry = checkpoint.entries.get(f"{scope}global_step")
    if entry is None or entry.shape or entry.dtype is None or entry.dtype.kind != "i":
        return None
    return int(checkpoint.read(f"{scope}global_step"))
