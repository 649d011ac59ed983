"""The entry `extras.segments` of a model file, which says that the model predicts segments of videos."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from topgb.errors import InputError
from topgb.features import MOST_VALUES
from topgb.models.options import Options, validate


class _SegmentsEntry(Options):
    """`context` and `whole` frames are seen beside the segment's own; `classes` were rated in training."""

    # Later versions may say more.
    model_config = ConfigDict(extra="ignore")

    frames: Literal[5]
    context: int = Field(0, ge=0, le=MOST_VALUES)
    whole: int = Field(0, ge=0, le=MOST_VALUES)
    classes: list[int] | None = Field(None, min_length=1)


def check_segments(value: Any, classes: int) -> None:
    """Raise `InputError` where the entry is not as topgb writes it for a model of `classes` classes."""
    entry = validate(_SegmentsEntry, value, "extras.segments", if_missing="models of segments have it")
    for number in entry.classes or ():
        if not 0 <= number < classes:
            raise InputError(f"'extras.segments' names class {number}, which is none of the {classes} classes")
