"""Combine a 2018 checkpoint's flags file, the user's settings and the variables' shapes into an architecture."""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topgb.errors import InputError, option
from topgb.features import YOUTUBE8M_FRAMES, YOUTUBE8M_VIDEOS, Feature, FeatureSpec
from topgb.from2018.flags import known_models, section_from_flags
from topgb.from2018.shapes import VIDEO_MODELS, Shapes, classes_of_shapes, flags_of_shapes
from topgb.from2018.variables import TOWERS
from topgb.json_reading import read_json
from topgb.models import ModelConfig, parse_model

FLAGS_FILE = "model_flags.json"
_MOST_DIGITS = 10
# These settings describe the model's class and data, not how the model is built.
_ABOUT_DATA = frozenset({"model", "feature_names", "feature_sizes", "frame_features", "label_loss"})


def flags_beside(prefix: Path) -> dict[str, Any]:
    """The flags in the file beside a checkpoint; none if there is no file. Raises `InputError` for a damaged file."""
    path = prefix.parent / FLAGS_FILE
    try:
        flags = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise InputError(f"{path} is not readable JSON; mend or remove it and give {_model_setting()}") from None
    if not isinstance(flags, dict):
        raise InputError(f"{path} is not a JSON object of flags; mend or remove it and give {_model_setting()}")
    return flags


def _model_setting() -> str:
    return option("set", {"model": "…"})


def architecture(model: str, flags: Mapping[str, Any], shapes: Shapes) -> tuple[FeatureSpec, ModelConfig, int]:
    """The features, the architecture and the number of classes of a model of the 2018 class `model`.

    `flags` are those of the checkpoint's file and of the settings; `shapes` are the variables' shapes by name, without
    the scope. Raises `InputError` if these do not fit each other.
    """
    if model not in known_models():
        raise InputError(f"there is no 2018 model of this name here; there are: {', '.join(known_models())}")
    spec = _feature_spec(model, flags)
    section = _model_section(model, flags, shapes, spec)
    return spec, parse_model(section), classes_of_shapes(shapes)


def _feature_spec(model: str, flags: Mapping[str, Any]) -> FeatureSpec:
    of_videos = model in VIDEO_MODELS
    usual = YOUTUBE8M_VIDEOS if of_videos else YOUTUBE8M_FRAMES
    frames = flags.get("frame_features", not of_videos)
    if not isinstance(flags.get("label_loss", ""), str):
        raise InputError(f"'label_loss' is {reprlib.repr(flags['label_loss'])}; it must be a word")
    if not isinstance(frames, bool):
        raise InputError(f"'frame_features' is {reprlib.repr(frames)}; it must be true or false")
    if frames == of_videos:
        level = "one vector per video" if of_videos else "frames"
        raise InputError(f"this class takes {level}, but 'frame_features' is {str(frames).lower()}")
    names = _comma_separated(flags, "feature_names", [feature.name for feature in usual.features])
    sizes = _comma_separated(flags, "feature_sizes", [str(feature.size) for feature in usual.features])
    if len(names) != len(sizes):
        raise InputError(f"there are {len(names)} feature_names and {len(sizes)} feature_sizes")
    for size in sizes:
        if not (size.isascii() and size.isdigit() and len(size) <= _MOST_DIGITS):
            raise InputError(f"'feature_sizes' has {reprlib.repr(size)}, which is no size")
    dtype = usual.features[0].dtype
    features = tuple(Feature(name, int(size), dtype) for name, size in zip(names, sizes, strict=True))
    return FeatureSpec(usual.level, features)


def _comma_separated(flags: Mapping[str, Any], flag: str, usual: list[str]) -> list[str]:
    """The items of a flag's comma-separated list, as text; YAML reads a list of one size as a number."""
    value = flags.get(flag, ",".join(usual))
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise InputError(f"{flag!r} is {reprlib.repr(value)}; it must be words or numbers with commas between them")
    return [part.strip() for part in str(value).split(",")]


def _model_section(model: str, flags: Mapping[str, Any], shapes: Shapes, spec: FeatureSpec) -> dict[str, Any]:
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
                raise InputError(f"{option('set')} model.{key}: {name!r} is not a section of the model")
        place[last] = value
    return section


def _check_towers(section: Mapping[str, Any], spec: FeatureSpec) -> None:
    """Raise `InputError` if the class splits the joined features in two, but the features are not rgb and audio.

    2018 split at a fixed place, whatever the features were called; here a member finds them by name.
    """
    names = [feature.name for feature in spec.features]
    apart = any(isinstance(value, dict) and set(value) == set(TOWERS) for value in section.values())
    if apart and names != list(TOWERS):
        raise InputError(
            f"this class treats {' and '.join(TOWERS)} apart, in this order, but 'feature_names' is {','.join(names)!r}"
        )
