"""The `model` section of a recipe, and of a model file's members: which architecture, and its options."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from topgb.errors import InputError, option
from topgb.features import MOST_VALUES, YOUTUBE8M_MAX_FRAMES
from topgb.models.options import Options, validate
from topgb.models.registry import RESERVED_KEYS, find_aggregator, find_head, heads


class _Frame(Options):
    """The keys that every model has; the other keys belong to its aggregator."""

    aggregator: str
    head: dict[str, Any]
    features: list[str] | None = Field(None, min_length=1)
    normalization: Literal["l2", "none"] = "l2"
    max_frames: int = Field(YOUTUBE8M_MAX_FRAMES, ge=1, le=MOST_VALUES)
    mixture: int = Field(1, ge=1, le=100)


@dataclass(frozen=True)
class ModelConfig:
    """An architecture with all its options resolved.

    `features` names the features that the model uses (None: all features of the data). `normalization` says how the
    frontend scales each frame's joined vector. The model sees the first `max_frames` frames of a video. `mixture` is
    the number of such models mixed into one (`topgb.models.mixture`).
    """

    aggregator: str
    aggregator_options: Options
    head: str
    head_options: Options
    features: tuple[str, ...] | None
    normalization: Literal["l2", "none"]
    max_frames: int
    mixture: int = 1

    def to_json(self) -> dict[str, Any]:
        """The section with every option spelled out; `parse_model` reads it back."""
        return {
            "aggregator": self.aggregator,
            **self.aggregator_options.model_dump(),
            "head": {"name": self.head, **self.head_options.model_dump()},
            "features": None if self.features is None else list(self.features),
            "normalization": self.normalization,
            "max_frames": self.max_frames,
            "mixture": self.mixture,
        }


def parse_model(section: dict[str, Any]) -> ModelConfig:
    """Validate a `model` section.

    `head` is a name, or a mapping with `name` and the head's options. The aggregator's options stand in the section
    itself. Raises `InputError` naming the key that is unknown, missing or of the wrong type.
    """
    section = dict(section)
    if isinstance(section.get("head"), str):
        section["head"] = {"name": section["head"]}
    frame = validate(_Frame, {k: v for k, v in section.items() if k in RESERVED_KEYS}, "model")
    aggregator = find_aggregator(frame.aggregator)
    head_options = dict(frame.head)
    if not isinstance(head_options.get("name"), str):
        choice = option("set", {"model.head.name": "|".join(heads())})
        raise InputError(f"'model.head' names no head; say {choice}")
    head_name = head_options.pop("name")
    head = find_head(head_name)
    options = {k: v for k, v in section.items() if k not in RESERVED_KEYS}
    return ModelConfig(
        aggregator=frame.aggregator,
        aggregator_options=_sized(validate(aggregator.Options, options, "model", also=RESERVED_KEYS), "model"),
        head=head_name,
        head_options=_sized(validate(head.Options, head_options, "model.head"), "model.head"),
        features=None if frame.features is None else tuple(frame.features),
        normalization=frame.normalization,
        max_frames=frame.max_frames,
        mixture=frame.mixture,
    )


def _sized(options: Options, path: str) -> Options:
    """Return `options`. Raises `InputError` where a number exceeds `MOST_VALUES`; larger tensor sizes overflow."""
    for key, value in options.model_dump().items():
        numbers = value.values() if isinstance(value, dict) else [value]
        if any(isinstance(number, int) and number > MOST_VALUES for number in numbers):
            raise InputError(f"'{path}.{key}' is {value}; numbers go up to {MOST_VALUES}")
    return options
