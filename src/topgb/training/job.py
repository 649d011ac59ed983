"""What to train, on what, and what came of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from topgb.errors import DamagedRecordError
from topgb.evaluation.metrics import Scores
from topgb.records.damage import OnDamaged
from topgb.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, and where to put it.

    recipe          everything that determines the model but the records
    data            training records: path, glob or URL
    out             directory of the run
    validate        records to score after each epoch; the best checkpoint by GAP becomes the model
    init_from       model file to start from; a head for another number of classes starts anew
    new_head        start the head anew in any case: other classes, although as many
    ema_source      model file to continue with its weights averaged; must be of the recipe's architecture
    teacher         folder of `topgb distill` whose scores the model learns from beside the labels, by the recipe's
                    `training.distill_weight`; or "records", which then hold them themselves
    class_names     V names for the model file; None takes those of the model file that training starts from, if the
                    classes are the same. A run that is resumed gets them in place of its earlier ones
    resume          go on from the last checkpoint in `out`, if there is one
    force           overwrite a run in `out`
    on_damaged      `stop` at a damaged record, or `skip` it
    workers         processes that read ahead (0: read in this one)
    device          where to compute: `auto`, `cpu`, `cuda`, `cuda:1` …
    devices         processes of each machine, each with a device of its own; None is one, or as `torchrun` has it
    num_nodes       machines; None likewise. Every rank gets batches of the recipe's size
    checkpoint_minutes   most minutes between checkpoints; every epoch ends with one too
    """

    recipe: Recipe
    data: str
    out: Path
    validate: str | None = None
    init_from: Path | None = None
    new_head: bool = False
    ema_source: Path | None = None
    teacher: Path | Literal["records"] | None = None
    class_names: tuple[str, ...] | None = None
    resume: bool = False
    force: bool = False
    on_damaged: OnDamaged = "stop"
    workers: int = 0
    device: str = "auto"
    devices: int | None = None
    num_nodes: int | None = None
    checkpoint_minutes: float = 10.0


@dataclass
class TrainingResult:
    """The model file, its scores on the validation records if there were any, and the records left out.

    With several ranks each gets the same; `first` is whether this process is the one that speaks for them.
    """

    model: Path
    validation: Scores | None
    damaged: list[DamagedRecordError] = field(default_factory=list)
    first: bool = True
