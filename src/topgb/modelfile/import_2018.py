"""Checkpoints of the 2018 system to model files, without TensorFlow."""

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topgb import __version__
from topgb.errors import InputError
from topgb.features import YOUTUBE8M_FRAMES, YOUTUBE8M_VIDEOS, Feature, FeatureSpec
from topgb.files import refuse_existing
from topgb.modelfile.flags_of_shapes import Shapes, classes_of_shapes, flags_of_shapes
from topgb.modelfile.from_2018 import known_models, section_from_flags
from topgb.modelfile.header import Header, Member
from topgb.modelfile.loaded import assemble, pack_member
from topgb.modelfile.store import write_model_file
from topgb.modelfile.tf1_checkpoint import TF1Checkpoint, open_checkpoint
from topgb.modelfile.variables_2018 import TOWERS, state_from_variables
from topgb.models import ModelConfig, Tagger, build_tagger, parse_model

SCOPE = "tower/"
SHADOW = "/ExponentialMovingAverage"
# What Adam keeps beside a variable, and what a graph counts.
SLOTS = ("/Adam", "/Adam_1")
COUNTERS = frozenset({"global_step", "beta1_power", "beta2_power"})
FLAGS_FILE = "model_flags.json"
# The classes that took one vector a video; the others took frames.
VIDEO_MODELS = frozenset({"LogisticModel", "MoeModel"})
# A variable that quantize.py replaced: by codes and a codebook, or in half precision.
_QUANTISED = re.compile(r"(_quants|_space|float16)$")
_MERGED = re.compile(r"model_\d+/")
_MOST_DIGITS = 10


@dataclass(frozen=True)
class Imported:
    """The header written, and the checkpoint's variables that no part of the model uses."""

    header: Header
    unknown: list[str]


def import_checkpoint(
    prefix: Path, path: Path, use_ema: bool = False, settings: Mapping[str, Any] | None = None, force: bool = False
) -> Imported:
    """Write the model file of a TensorFlow 1 checkpoint of the 2018 system (`PREFIX.index`, `PREFIX.data-…`).

    The class and the features are read from `model_flags.json` beside it, sizes from the variables' shapes. `settings`
    has what neither tells: 2018 flags (`dbof_pooling_method`, `model`), or options of the `model` section
    (`model.pooling`). `use_ema` takes the moving averages instead of the weights. Raises `InputError` where the
    checkpoint cannot be read, is quantised or merged, or does not fit the class.
    """
    refuse_existing(path, force)
    checkpoint = open_checkpoint(prefix)
    flags = {**_flags_beside(checkpoint.prefix), **(settings or {})}
    model = flags.get("model")
    if not isinstance(model, str):
        raise InputError(
            f"{checkpoint.prefix.parent / FLAGS_FILE} names no model; give its 2018 class: --set model=NetVLADModelLF"
        )
    weights, shapes = _variables(checkpoint, use_ema)
    read = _Reading(checkpoint, weights)
    try:
        spec, config, classes = _architecture(model, flags, shapes)
        state = state_from_variables(_unfilled(spec, classes, config), read)
    except InputError as error:
        if str(error).startswith(str(checkpoint.prefix)):
            raise
        hint = " among the moving averages" if use_ema and "is missing" in str(error) else ""
        raise InputError(
            f"{checkpoint.prefix} as {model}: {error}{hint}; check the class, --set and {FLAGS_FILE}"
        ) from None
    unknown = sorted(_unknown(checkpoint, {weights[name] for name in read.used}))
    entries, tensors = pack_member(0, state)
    origin = {
        "software": f"topgb {__version__}",
        "imported": {
            "model": model,
            "flags": {key: value for key, value in sorted(flags.items()) if key != "model"},
            "weights": "ema" if use_ema else "raw",
            "step": _step(checkpoint),
            "unknown": unknown,
        },
    }
    header = Header(spec, classes, (Member(1.0, config),), entries, origin=origin)
    assemble(header, tensors, str(checkpoint.prefix))
    write_model_file(path, header, tensors, force)
    return Imported(header, unknown)


def _architecture(model: str, flags: Mapping[str, Any], shapes: Shapes) -> tuple[FeatureSpec, ModelConfig, int]:
    """The features, the architecture and the number of classes."""
    if model not in known_models():
        raise InputError(f"there is no 2018 model of this name here; there are: {', '.join(known_models())}")
    spec = _spec(model, flags)
    section = _section(model, flags, shapes, spec)
    return spec, parse_model(section), classes_of_shapes(shapes)


def _unfilled(spec: FeatureSpec, classes: int, config: ModelConfig) -> Tagger:
    try:
        with torch.device("meta"):
            return build_tagger(spec, classes, config)
    except (RuntimeError, TypeError, ValueError, OverflowError):
        # Each size may be sound and their product still too much for a tensor.
        raise InputError("the sizes of its variables and features make no model") from None


class _Reading(dict):
    """The checkpoint's variables by their names in the model, read when asked for, with a note of which were."""

    def __init__(self, checkpoint: TF1Checkpoint, names: Mapping[str, str]):
        super().__init__(names)
        self.checkpoint, self.used = checkpoint, set[str]()

    def __getitem__(self, name: str) -> np.ndarray:
        self.used.add(name)
        return self.checkpoint.read(super().__getitem__(name))


def _variables(checkpoint: TF1Checkpoint, use_ema: bool) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Of the model's variables, without the scope: the names to read them by, and their shapes.

    The moving averages may be of some variables only. The shapes are then of all of them, for a variable that seems not
    to be there could make another architecture of it.
    """
    names = checkpoint.names()
    if any(_MERGED.match(name) for name in names):
        raise InputError(f"{checkpoint.prefix} holds several merged models; merged checkpoints cannot be imported yet")
    if any(_QUANTISED.search(name) for name in names):
        raise InputError(f"{checkpoint.prefix} is quantised; quantised checkpoints cannot be imported yet")
    ours = {name.removeprefix(SCOPE): name for name in names if name.startswith(SCOPE)}
    raw = {short: name for short, name in ours.items() if not short.endswith((SHADOW, *SLOTS))}
    shadows = {short.removesuffix(SHADOW): name for short, name in ours.items() if short.endswith(SHADOW)}
    if use_ema and not shadows:
        raise InputError(f"{checkpoint.prefix} holds no moving averages; leave out --use-ema")
    weights, known = (shadows, {**raw, **shadows}) if use_ema else (raw, raw)
    return weights, {short: checkpoint.shape(name) for short, name in known.items()}


def _unknown(checkpoint: TF1Checkpoint, used: set[str]) -> list[str]:
    known = {name.removesuffix(SHADOW) for name in used}
    return [
        name
        for name in checkpoint.names()
        if name not in COUNTERS
        and next((name.removesuffix(end) for end in (SHADOW, *SLOTS) if name.endswith(end)), name) not in known
    ]


def _flags_beside(prefix: Path) -> dict[str, Any]:
    path = prefix.parent / FLAGS_FILE
    try:
        flags = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path} is not readable JSON; mend or remove it and give --set model=…") from None
    if not isinstance(flags, dict):
        raise InputError(f"{path} is not a JSON object of flags; mend or remove it and give --set model=…")
    return flags


def _spec(model: str, flags: Mapping[str, Any]) -> FeatureSpec:
    of_videos = model in VIDEO_MODELS
    usual = YOUTUBE8M_VIDEOS if of_videos else YOUTUBE8M_FRAMES
    frames = flags.get("frame_features", not of_videos)
    if not isinstance(flags.get("label_loss", ""), str):
        raise InputError(f"'label_loss' is {reprlib.repr(flags['label_loss'])}; it must be a word")
    if not isinstance(frames, bool):
        raise InputError(f"'frame_features' is {reprlib.repr(frames)}; it must be true or false")
    if frames == of_videos:
        level = "one vector a video" if of_videos else "frames"
        raise InputError(f"this class takes {level}, but 'frame_features' is {str(frames).lower()}")
    names = _parts(flags, "feature_names", [feature.name for feature in usual.features])
    sizes = _parts(flags, "feature_sizes", [str(feature.size) for feature in usual.features])
    if len(names) != len(sizes):
        raise InputError(f"there are {len(names)} feature_names and {len(sizes)} feature_sizes")
    for size in sizes:
        if not (size.isascii() and size.isdigit() and len(size) <= _MOST_DIGITS):
            raise InputError(f"'feature_sizes' has {reprlib.repr(size)}, which is no size")
    dtype = usual.features[0].dtype
    features = tuple(Feature(name, int(size), dtype) for name, size in zip(names, sizes, strict=True))
    return FeatureSpec(usual.level, features)


def _parts(flags: Mapping[str, Any], flag: str, usual: list[str]) -> list[str]:
    """The parts of a flag's comma-separated list; a single size is a number to YAML."""
    value = flags.get(flag, ",".join(usual))
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise InputError(f"{flag!r} is {reprlib.repr(value)}; it must be words or numbers with commas between them")
    return [part.strip() for part in str(value).split(",")]


# Settings that say what the checkpoint is of, not how its model is built.
_ABOUT_DATA = frozenset({"model", "feature_names", "feature_sizes", "frame_features", "label_loss"})


def _section(model: str, flags: Mapping[str, Any], shapes: Shapes, spec: FeatureSpec) -> dict[str, Any]:
    options = {key.removeprefix("model."): value for key, value in flags.items() if key.startswith("model.")}
    own = {key: value for key, value in flags.items() if key not in _ABOUT_DATA and not key.startswith("model.")}
    section = section_from_flags(model, {**flags_of_shapes(model, shapes), **own})
    _check_towers(section, spec)
    for key, value in options.items():
        place = section
        *sections, last = key.split(".")
        for name in sections:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InputError(f"--set model.{key}: {name!r} is not a section of the model")
        place[last] = value
    return section


def _check_towers(section: Mapping[str, Any], spec: FeatureSpec) -> None:
    """Raise `InputError` where the class cut the joined features in two, but they are not those two.

    2018 cut at a fixed place, whatever the features were called; here a member finds them by name.
    """
    names = [feature.name for feature in spec.features]
    apart = any(isinstance(value, dict) and set(value) == set(TOWERS) for value in section.values())
    if apart and names != list(TOWERS):
        raise InputError(
            f"this class treats {' and '.join(TOWERS)} apart, in this order, but 'feature_names' is {','.join(names)!r}"
        )


def _step(checkpoint: TF1Checkpoint) -> int | None:
    entry = checkpoint.entries.get("global_step")
    if entry is None or entry.shape or entry.dtype is None or entry.dtype.kind != "i":
        return None
    return int(checkpoint.read("global_step"))
