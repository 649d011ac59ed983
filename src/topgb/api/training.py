"""Calls that train: `train`, and `build` for a run's checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from topgb.api.arguments import (
    Data,
    PathLike,
    Size,
    check_choices,
    check_least,
    to_optional_path,
    to_path,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.api.results import ModelFile, model_file
from topgb.api.tensor_defaults import own_defaults
from topgb.errors import InputError, InterruptError, option
from topgb.progress import SILENT, Progress

if TYPE_CHECKING:
    from topgb.records.description import Description
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.job import TrainingResult
    from topgb.training.recipe import Overrides, Recipe

RecipeLike = PathLike | Mapping[str, Any]


@unpacking
def train(
    recipe: RecipeLike,
    data: Data,
    out: PathLike,
    *,
    validate: Data | None = None,
    set: "Overrides | None" = None,
    init_from: PathLike | None = None,
    new_head: bool = False,
    ema_source: PathLike | None = None,
    ema_halflife: float | None = None,
    teacher: PathLike | None = None,
    distill_weight: float | None = None,
    vocabulary: PathLike | None = None,
    resume: bool = False,
    force: bool = False,
    on_damaged: "OnDamaged" = "stop",
    workers: int = 0,
    oversubscribe: bool = False,
    checkpoint_minutes: float = 10.0,
    device: str = "auto",
    devices: int | None = None,
    num_nodes: int | None = None,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "TrainingResult":
    """Train a recipe on labelled records and write a model file into the folder `out` (`topgb train`).

    `recipe` is the name of one that comes with topgb, a YAML file, a dict, or a run's folder; `set` overrides values by
    their keys. A `dataset.yaml` beside the records gives features, ranges, classes and names. The best checkpoint by
    GAP on `validate` becomes the model. `init_from` starts from a model file or a run, with a new head for other
    classes (`new_head`: in any case). `ema_source` continues one and averages its weights with the half-life
    `ema_halflife` in steps. `teacher` is a folder that `distill` has filled, or "records" for records that hold its
    scores; `distill_weight` is its share. `workers` processes read ahead, at most one per core unless `oversubscribe`.
    Each of `devices` processes on each of `num_nodes` machines gets batches of the recipe's size.

    Ctrl-C ends after the step, with a checkpoint; a second one at once. `resume=True` goes on to the same weights. From
    this call on, as in the command, PyTorch flushes subnormal numbers and the process keeps the memory it once had.

    Raises `InputError` for wrong input or changed settings, `TopgbError` where training diverges or the run cannot be
    written, `KeyboardInterrupt` after Ctrl-C.

    >>> run = topgb.train(recipe, "records/train*.tfrecord", "new", set={"training.epochs": 1}, progress=False)
    >>> run.model, run.validation
    (PosixPath('new/model.safetensors'), None)
    """
    from topgb.devices import flush_subnormals, keep_freed_memory
    from topgb.records.description import find_description
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.job import TrainingJob
    from topgb.training.loop import train as run_training
    from topgb.training.ranks import speaks_for_all

    check_choices(on_damaged=(on_damaged, OnDamaged))
    check_least(workers=(workers, 0), checkpoint_minutes=(checkpoint_minutes, 0))
    check_least(devices=(devices, 1), num_nodes=(num_nodes, 1))
    shown = to_progress(progress) if speaks_for_all() else SILENT
    pattern = to_pattern(data)
    described = find_description(pattern)
    if described is not None:
        shown.say(f"the records are described by {described.path}")
    ema = _Ema(ema_source, ema_halflife, devices, num_nodes)
    job = TrainingJob(
        recipe=_load(recipe, _with_share(set, teacher, distill_weight), described, ema, shown),
        data=pattern,
        out=to_path(out),
        validate=None if validate is None else to_pattern(validate),
        init_from=to_optional_path(init_from),
        new_head=new_head,
        ema_source=to_optional_path(ema_source),
        teacher="records" if teacher == "records" else to_optional_path(teacher),
        class_names=_class_names(vocabulary, described),
        resume=resume,
        force=force,
        on_damaged=on_damaged,
        workers=workers,
        oversubscribe=oversubscribe,
        device=device,
        checkpoint_minutes=checkpoint_minutes,
        devices=devices,
        num_nodes=num_nodes,
    )
    keep_freed_memory()
    flush_subnormals()
    try:
        return run_training(job, shown)
    except InterruptError as interrupted:
        # Code that goes on after a `TopgbError` must not go on after Ctrl-C.
        raise KeyboardInterrupt(str(interrupted)) from interrupted


@dataclass(frozen=True)
class _Ema:
    """The options of `train` for continuing a model, and the numbers of processes that its half-life depends on."""

    source: PathLike | None
    halflife: float | None
    devices: int | None
    num_nodes: int | None


def _load(
    recipe: RecipeLike, overrides: "Overrides | None", described: "Description | None", ema: _Ema, progress: Progress
) -> "Recipe":
    """The recipe to train. Raises `InputError` where it is not valid, or the options of `ema` do not fit."""
    from topgb.training.ema import continued_recipe
    from topgb.training.ranks import planned_ranks
    from topgb.training.recipe import load_recipe, overridden_keys

    name = recipe if isinstance(recipe, Mapping | str) else to_path(recipe)
    of_data = (None, None) if described is None else (described.data_section(), described.frames_to_look_at)
    loaded = load_recipe(name, overrides, *of_data)
    if ema.source is None:
        if ema.halflife is not None:
            raise InputError(
                f"{option('ema_halflife')} goes with {option('ema_source')}; to average from scratch use "
                f"{option('set', {'ema.halflife': '…'})}"
            )
        return loaded
    per_node, nodes = planned_ranks(ema.devices, ema.num_nodes)
    loaded = continued_recipe(loaded, ema.halflife, overridden_keys(overrides), per_node * nodes)
    assert loaded.ema is not None
    progress.say(
        f"continuing {to_path(ema.source)}: EMA half-life {loaded.ema.halflife:g} steps, learning rate "
        f"{loaded.optimizer.learning_rate:g}, {loaded.training.epochs} epochs"
    )
    return loaded


def _with_share(overrides: "Overrides | None", teacher: PathLike | None, share: float | None) -> "Overrides | None":
    """The overrides, with the teacher's share of the target among them if it is given."""
    from topgb.training.recipe import parse_overrides

    if share is None:
        return overrides
    if teacher is None:
        raise InputError(
            f"{option('distill_weight')} goes with {option('teacher')}; name the folder that topgb distill has filled"
        )
    return {**parse_overrides(overrides), "training.distill_weight": float(share)}


def _class_names(vocabulary: PathLike | None, described: "Description | None") -> tuple[str, ...] | None:
    from topgb.vocabulary import read_vocabulary

    if vocabulary is not None:
        return read_vocabulary(to_path(vocabulary))
    return None if described is None else described.class_names()


def build(
    run: PathLike,
    out: PathLike | None = None,
    *,
    use_ema: bool | None = None,
    vocabulary: PathLike | None = None,
    force: bool = False,
) -> ModelFile:
    """Make a model file from a run's best checkpoint (`topgb build`; 2018: `eval.py --build_only`); no records needed.

    A run that did not validate gives its latest checkpoint. `use_ema` chooses its EMA weights or its raw ones; None
    means EMA weights if the run keeps them. `out` is ema.safetensors or raw.safetensors in the run, as chosen, else
    model.safetensors. Raises `InputError` where `run` is no run, has no checkpoint or no EMA weights although asked
    for, or `out` exists and `force` is off.

    >>> topgb.build("run", "raw.safetensors", use_ema=False).classes
    12
    """
    from topgb.training.build import build_model_file
    from topgb.training.run_folder import MODEL_FILE

    folder = to_path(run)
    own = {None: MODEL_FILE, True: "ema.safetensors", False: "raw.safetensors"}
    path = folder / own[use_ema] if out is None else to_path(out)
    with own_defaults():
        return model_file(path, build_model_file(folder, path, use_ema, force, _class_names(vocabulary, None)))
