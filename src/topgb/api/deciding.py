"""The call that finds from which probability each class is given: `thresholds`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgb.api.arguments import (
    Data,
    PathLike,
    Size,
    check_choices,
    to_path,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.errors import DamagedRecordError
from topgb.results import Table

if TYPE_CHECKING:
    from topgb.modelfile import Header
    from topgb.records.on_damaged import OnDamaged


@dataclass(frozen=True, repr=False)
class ThresholdsFile(Table):
    """A model file with thresholds; other calls take it for a path. The table has a row for each class.

    path       where it is
    goal       what the thresholds are for
    common     the best threshold that is the same for all classes
    values     the least probability at which each class is given
    positives  the number of labels by which each was found
    videos     the number of videos by which they were found
    """

    path: Path
    goal: str
    common: float
    values: list[float]
    positives: list[int]
    videos: int
    header: "Header"
    damaged: list[DamagedRecordError] = field(default_factory=list)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def to_dict(self) -> dict[str, Any]:
        """`path`, `goal`, `videos`, `common` and `thresholds`, a number for each class."""
        path = os.fspath(self.path)
        return {
            "path": path, "goal": self.goal, "videos": self.videos, "common": self.common, "thresholds": self.values
        }  # fmt: skip

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """`class`, `name`, `positives` and `threshold`."""
        classes = range(self.header.classes)
        names = [self.header.class_name(index) for index in classes]
        return {"class": classes, "name": names, "positives": self.positives, "threshold": self.values}


@unpacking
def thresholds(
    model: PathLike,
    data: Data,
    out: PathLike,
    *,
    for_: str = "f1",
    use_ema: bool | None = None,
    force: bool = False,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> ThresholdsFile:
    """Find the probability from which each class is given, and keep it in the model's file (`topgb thresholds`).

    `model` is a model file or a run's folder, `data` labelled records that it was not trained on, `out` the model file
    to write. `for_` says what the thresholds are for: "f1", the mean of F1 over all pairs and the mean F1 of the
    classes, or one of the two, "f1_micro" and "f1_macro"; "precision=0.9" or "recall=0.8", and then the most of the
    other. A class with few labels is judged by its probabilities and by what holds for all classes.

    Raises `InputError` as `evaluate` does, and if `out` exists and `force` is off.

    >>> found = topgb.thresholds("run", "records/validate*.tfrecord", "decided.safetensors", progress=False)
    >>> len(found.values)
    12
    >>> topgb.evaluate(found, "records/validate*.tfrecord", progress=False).threshold
    'model'
    """
    from topgb.devices import choose_device
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.evaluation.thresholds import Goal, collect_curves, find_thresholds, write_thresholds
    from topgb.files import refuse_existing
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import open_model, open_stored

    check_choices(on_damaged=(on_damaged, OnDamaged))
    goal, source, path, shown = Goal.parse(for_), to_path(model), to_path(out), to_progress(progress)
    refuse_existing(path, force, "a model")
    chosen = choose_device(device)
    stored, loaded = open_stored(source, use_ema), open_model(source, chosen, use_ema)
    dataset = open_for(stored, to_pattern(data), on_damaged, progress=shown)
    curves = collect_curves(loaded, dataset, chosen, shown)
    warn_of_videos(dataset)
    found = find_thresholds(curves, goal)
    header = write_thresholds(path, stored, found, force)
    return ThresholdsFile(
        path, str(goal), found.common, found.values.tolist(), curves.positives.tolist(), curves.videos, header,
        dataset.damaged,
    )  # fmt: skip
