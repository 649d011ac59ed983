"""Recipes: everything that determines a trained model except the records, in one validated YAML file."""

import copy
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from topgb.errors import InputError, option
from topgb.features import Feature, FeatureSpec
from topgb.files import open_input
from topgb.models import ModelConfig, parse_model
from topgb.models.options import Options, or_meant, validate
from topgb.yaml_reading import MOST_BYTES, parse_yaml

# A run's resolved recipe.
RECIPE_FILE = "recipe.yaml"

# Values by their key in the recipe (`model.clusters`), or texts `KEY=VALUE` with the value in YAML.
Overrides = Mapping[str, Any] | Sequence[str]


class FeatureEntry(Options):
    """One feature of the records; `range` (low, high) is the quantisation range of bytes."""

    name: str
    size: int = Field(ge=1)
    dtype: Literal["uint8", "float32"] = "uint8"
    range: tuple[float, float] = Field((-2.0, 2.0), strict=False)


class Data(Options):
    """The contents of the records. `classes` is the number of classes V; labels are 0 … V - 1."""

    level: Literal["video", "frame"]
    features: list[FeatureEntry]
    classes: int = Field(ge=1, lt=2**31)

    def spec(self) -> FeatureSpec:
        return FeatureSpec(self.level, tuple(Feature(**entry.model_dump()) for entry in self.features))


class Training(Options):
    """Options of the training loop: length, batches, loss and arithmetic.

    batch_size      videos of a step on one device (2018: `batch_size`)
    epochs          passes over the records (2018: `num_epochs`)
    frames          `all`, `random:N`, `sequence:N`, `sample_all` or `shuffle`: which frames of a video are looked at,
                    drawn anew each epoch (2018: `iterations`, `sample_random_frames`, `sample_all`, `frame_shuffle`)
    loss            `cross_entropy`, `hinge` or `softmax` (2018: `label_loss`)
    distill_weight  share of a teacher's scores in the target, if there is a teacher; the labels have the rest
                    (2018: `loss_lambda`)
    seed            seed of the weights, the order of the records, frame sampling and dropout
    precision       `float32`, `bfloat16` autocast where the device computes in it natively (float32 elsewhere), or
                    `auto`: bfloat16 where it is natively at least 1.3 times as fast
    accumulate      pieces in which a step's batch is computed, one after the other, to save memory
    batch_norm_momentum         share of a moving statistic that a step keeps (2018: 0.999, too slow for short runs)
    start_at_class_frequencies  start the output biases at the log-odds of the classes' frequencies
    early_stop      stop after this many epochs without a better GAP on the validation records
    """

    batch_size: int = Field(128, ge=1)
    epochs: int = Field(5, ge=1)
    frames: str = "all"
    loss: Literal["cross_entropy", "hinge", "softmax"] = "cross_entropy"
    distill_weight: float = Field(0.5, ge=0.0, le=1.0)
    seed: int = Field(0, ge=0, lt=2**31)
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    accumulate: int = Field(1, ge=1)
    batch_norm_momentum: float = Field(0.99, ge=0.0, lt=1.0)
    start_at_class_frequencies: bool = True
    early_stop: int | None = Field(None, ge=1)


class Optimizer(Options):
    """Adam in TensorFlow-1 form, and its learning rate.

    learning_rate   at the start (2018: `base_learning_rate`)
    schedule        `staircase`: times `decay` each `decay_examples` videos (2018); `cosine` to 0; `constant`
    warmup          share of the run over which the learning rate rises from 0
    clip_norm       most gradient norm of each variable (2018: `clip_gradient_norm`), or none
    weight_decay    decoupled (AdamW), on matrices only; 2018 had none
    """

    learning_rate: float = Field(gt=0.0)
    schedule: Literal["staircase", "cosine", "constant"] = "staircase"
    decay: float = Field(0.95, gt=0.0, le=1.0)
    decay_examples: int = Field(4_000_000, ge=1)
    warmup: float = Field(0.0, ge=0.0, lt=1.0)
    clip_norm: float | None = Field(1.0, gt=0.0)
    weight_decay: float = Field(0.0, ge=0.0)


class Ema(Options):
    """An exponential moving average of weights and batch-norm statistics.

    `halflife` is 2018's `ema_halflife` in steps: the average keeps 1 - 1/halflife of itself each step (so it is a time
    constant; the true half-life is 0.69 of it). With `warmup` the share kept at step t is at most (1 + t) / (10 + t).
    """

    halflife: float = Field(gt=1.0)
    warmup: bool = True


class Segments(Options):
    """Segments of the videos to train on, in place of whole ones (`topgb.records.segment_dataset.SegmentCut`).

    rows             `rated`: the rated segments, whose rated classes alone count in the loss; `every`: all segments,
                     each with the labels of its video
    context          frames before the segment, and as many after it, that are looked at too
    whole            frames spread evenly over the whole video that are looked at too
    video_labels     what an unrated label of the video counts in each rated segment; 0: nothing
    mined_negatives  unrated classes taken for negatives of each segment, drawn anew in each epoch from the classes that
                     are labels neither of the video nor of its segments
    """

    rows: Literal["rated", "every"] = "rated"
    context: int = Field(0, ge=0, le=10_000)
    whole: int = Field(0, ge=0, le=10_000)
    video_labels: float = Field(0.0, ge=0.0, le=1.0)
    mined_negatives: int = Field(0, ge=0)


class Recipe(Options):
    """A whole recipe; `model` is read by `topgb.models.parse_model`."""

    data: Data
    model: dict[str, Any]
    training: Training = Field(default_factory=Training)
    optimizer: Optimizer
    ema: Ema | None = None
    segments: Segments | None = None

    def model_section(self) -> ModelConfig:
        return parse_model(self.model)

    def to_json(self) -> dict[str, Any]:
        """The recipe with every default and every model option spelled out."""
        value = {**self.model_dump(mode="json"), "model": self.model_section().to_json()}
        if self.segments is None:
            # Left out, as in recipes that are older than segments.
            del value["segments"]
        return value


def load_recipe(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Overrides | None = None,
    data: dict[str, Any] | None = None,
    max_frames: int | None = None,
) -> Recipe:
    """A recipe with `overrides` applied: the shipped one of that name, a YAML file, a run's folder, or plain values.

    `overrides` are values by `KEY.KEY`, or texts `KEY.KEY=VALUE`. `data` takes the place of the recipe's `data` section
    before the overrides, and `max_frames` is the default of the key `model.max_frames`. Raises `InputError` naming the
    key that is unknown, missing or of the wrong type.
    """
    if isinstance(recipe, Mapping):
        value = copy.deepcopy(dict(recipe))
    else:
        name = os.fspath(recipe)
        value = recipe_value(_recipe_text(name), name)
        if not isinstance(value, dict):
            raise InputError(f"{name} is not a recipe: a YAML mapping with data, model, training, optimizer and ema")
    if data is not None:
        value = {**value, "data": dict(data)}
    if max_frames is not None and isinstance(value.get("model"), dict):
        value = {**value, "model": {"max_frames": max_frames, **value["model"]}}
    for key, setting in parse_overrides(overrides).items():
        _apply(value, key, setting)
    return parse_recipe(value)


def overridden_keys(overrides: Overrides | None) -> set[str]:
    """The full keys that the overrides set; one that sets a section counts for every key in its value."""
    return set().union(*(_leaves(value, key) for key, value in parse_overrides(overrides).items()))


def parse_overrides(overrides: Overrides | None) -> dict[str, Any]:
    """The values of overrides by key. Raises `InputError` for a text that is not of the form `KEY=VALUE`."""
    if isinstance(overrides, Mapping):
        return copy.deepcopy(dict(overrides))
    if isinstance(overrides, str) or not isinstance(overrides, Sequence | None):
        raise InputError(
            f"{option('set')} {overrides!r} gives no values by key, as {option('set', {'model.clusters': 64})} does"
        )
    return dict(_parse_override(override) for override in overrides or [])


def parse_recipe(value: Any) -> Recipe:
    """A recipe from plain values. Raises `InputError` naming the key that is wrong."""
    recipe = validate(Recipe, value, "")
    recipe.model_section()
    return recipe


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in _shipped().iterdir() if p.name.endswith(".yaml"))


def _shipped():
    return resources.files("topgb") / "recipes"


def _recipe_text(name: str) -> str:
    if name in shipped_recipes():
        return (_shipped() / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if path.is_dir() and not (path / RECIPE_FILE).is_file():
        raise InputError(f"{name} is no run: it has no {RECIPE_FILE}; name a recipe or a run")
    try:
        with open_input(path / RECIPE_FILE if path.is_dir() else path) as file:
            return file.read(MOST_BYTES + 1).decode()
    except UnicodeDecodeError:
        raise InputError(f"{name} is not a recipe: it is not text") from None
    except OSError:
        known = list(shipped_recipes())
        raise InputError(
            f"there is no recipe {name!r}{or_meant(name, known)} it is neither a readable file nor one of "
            f"{', '.join(known)}"
        ) from None


def _apply(recipe: Any, key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(recipe, dict) or not isinstance(recipe.setdefault(section, {}), dict):
            whole = option("set", {key[: key.index(section) + len(section)]: "{…}"})
            raise InputError(
                f"{option('set', {key: value})}: {section!r} is not a section of the recipe, but a single value; give "
                f"the whole section, {whole}"
            )
        recipe = recipe[section]
    recipe[last] = value


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = str(override).partition("=")
    if not equals or not key:
        example = option("set", {"model.clusters": 64})
        raise InputError(f"{option('set')} {override!r} is not KEY=VALUE, such as {example}")
    return key, recipe_value(text, option("set", {key: text}))


def _leaves(value: Any, key: str) -> set[str]:
    if not isinstance(value, dict) or not value:
        return {key}
    return set().union(*(_leaves(entry, f"{key}.{name}") for name, entry in value.items()))


def recipe_value(text: str, where: str) -> Any:
    """The value of a YAML text. Raises `InputError` naming `where` the text is from."""
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{where} is not YAML: {error}") from None
