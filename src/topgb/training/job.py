"""A training job and its result."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from topgb.errors import DamagedRecordError
from topgb.evaluation.metrics import Scores
from topgb.records.on_damaged import OnDamaged
from topgb.results import Result
from topgb.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingJob:
    """A model to train, the records to train it on, and the folder to put it in.

    recipe          everything that determines the model except the records
    data            training records: path, glob or URL, or a list of these
    out             directory of the run
    validate        records to score after each epoch; the best checkpoint by GAP becomes the model
    init_from       model file to start from; a head for another number of classes starts anew
    new_head        start the head anew even if the number of classes is the same
    ema_source      model file to continue while averaging its weights; must have the recipe's architecture
    teacher         folder of `topgb distill` with scores that the model learns beside the labels, in the share that the
                    recipe's `training.distill_weight` gives; or "records" if the records hold the scores themselves
    class_names     V names for the model file; None takes those of the model file that training starts from, if the
                    classes are the same. In a resumed run they replace the earlier names
    resume          go on from the last checkpoint in `out`, if there is one
    force           overwrite a run in `out`
    on_damaged      `stop` at a damaged record, or `skip` it
    workers         processes that read ahead (0: read in the training process); at most one for each core
    oversubscribe   start all `workers`, also where there are fewer cores
    device          where to compute: `auto`, `cpu`, `cuda`, `cuda:1` …
    devices         processes on each machine, each with a device of its own; None means one, or `torchrun`'s number
    num_nodes       machines; None means one, or `torchrun`'s number. Every rank gets batches of the recipe's size
    checkpoint_minutes   most minutes between checkpoints; every epoch ends with one too
    """

    recipe: Recipe
    data: str | Sequence[str]
    out: Path
    validate: str | Sequence[str] | None = None
    init_from: Path | None = None
    new_head: bool = False
    ema_source: Path | None = None
    teacher: Path | Literal["records"] | None = None
    class_names: tuple[str, ...] | None = None
    resume: bool = False
    force: bool = False
    on_damaged: OnDamaged = "stop"
    workers: int = 0
    oversubscribe: bool = False
    device: str = "auto"
    devices: int | None = None
    num_nodes: int | None = None
    checkpoint_minutes: float = 10.0


@dataclass(repr=False)
class TrainingResult(Result):
    """The model file, its scores on the validation records (None without any), and the damaged records left out.

    Calls that take a model's path take this too, for the path of the model file.
    With several ranks every rank gets the same result; `first` is true for the one rank that reports it.
    """

    model: Path
    validation: Scores | None
    damaged: list[DamagedRecordError] = field(default_factory=list)
    first: bool = True

    def __fspath__(self) -> str:
        return os.fspath(self.model)
