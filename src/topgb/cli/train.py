"""topgb train."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force, OnDamagedOption, Vocabulary, multiply_fast, report_damage


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe that comes with topgb, a YAML file, or a run's folder.", metavar="RECIPE|RUN"),
    ],
    data: Annotated[str, typer.Option(help="Training records: a file, a folder, a glob in quotes, a list, or a URL.")],
    out: Annotated[Path, typer.Option(help="Directory of the run: checkpoints, curves, model.safetensors.")],
    validate: Annotated[
        str | None, typer.Option(help="Records to score after each epoch; the best checkpoint becomes the model.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: --set model.clusters=64")
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option(help="Start from this model file or run, with a new head if the classes differ.")
    ] = None,
    new_head: Annotated[
        bool,
        typer.Option("--new-head", help="With --init-from: start the head anew even if there are as many classes."),
    ] = False,
    ema_source: Annotated[
        Path | None,
        typer.Option(help="Continue this trained model (a file or a run), keeping an average of its weights."),
    ] = None,
    ema_halflife: Annotated[
        float | None, typer.Option(help="Half-life of that average in steps.  [default: 1500 · devices · batch / 512]")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Learn from a teacher too: a folder that topgb distill has filled, or the word 'records' for records "
            "that hold its predictions.",
            metavar="DIR|records",
        ),
    ] = None,
    distill_weight: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The teacher's share; the labels have the rest. With 1 none are needed.  [default: 0.5]",
        ),
    ] = None,
    vocabulary: Vocabulary = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read records ahead, at most one per core; 0 reads in this one.")
    ] = 0,
    oversubscribe: Annotated[
        bool, typer.Option("--oversubscribe", help="Start all --workers, even more than there are cores.")
    ] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0.0, help="Most minutes between checkpoints; every epoch ends with one too.")
    ] = 10.0,
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda.")] = "auto",
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes on each machine, each with its own GPU.  [default: 1, or as torchrun says]"
        ),
    ] = None,
    num_nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines that train together.  [default: 1, or as torchrun says]")
    ] = None,
) -> None:
    """Train a recipe on labelled records and write a model file.

    Each of several processes gets batches of the recipe's size; all machines must see the records and --out.
    """
    from topgb.devices import flush_subnormals, keep_freed_memory
    from topgb.errors import InputError, InterruptError
    from topgb.progress import SILENT, TerminalProgress
    from topgb.records.description import find_description
    from topgb.training.checkpoint import way_to_go_on
    from topgb.training.ema import continued_recipe
    from topgb.training.job import TrainingJob
    from topgb.training.loop import train as run_training
    from topgb.training.ranks import planned_ranks, speaks_for_all
    from topgb.training.recipe import load_recipe, overridden_keys
    from topgb.vocabulary import read_vocabulary

    if distill_weight is not None:
        if teacher is None:
            raise InputError("--distill-weight goes with --teacher; name the folder that topgb distill has filled")
        settings = [*(settings or []), f"training.distill_weight={distill_weight}"]
    progress = TerminalProgress() if speaks_for_all() else SILENT
    described = find_description(data)
    of_data = (None, None) if described is None else (described.data_section(), described.frames_to_look_at)
    loaded = load_recipe(recipe, settings, *of_data)
    class_names = None if vocabulary is None else read_vocabulary(vocabulary)
    if described is not None:
        progress.say(f"the records are described by {described.path}")
        class_names = class_names or described.class_names()
    if ema_source is not None:
        per_node, nodes = planned_ranks(devices, num_nodes)
        loaded = continued_recipe(loaded, ema_halflife, overridden_keys(settings), per_node * nodes)
        assert loaded.ema is not None
        progress.say(
            f"continuing {ema_source}: EMA half-life {loaded.ema.halflife:g} steps, learning rate "
            f"{loaded.optimizer.learning_rate:g}, {loaded.training.epochs} epochs"
        )
    elif ema_halflife is not None:
        raise InputError("--ema-halflife goes with --ema-source; to average from scratch use --set ema.halflife=…")
    job = TrainingJob(
        recipe=loaded,
        data=data,
        out=out,
        validate=validate,
        init_from=init_from,
        new_head=new_head,
        ema_source=ema_source,
        teacher="records" if teacher == "records" else None if teacher is None else Path(teacher),
        class_names=class_names,
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
    multiply_fast(device)
    flush_subnormals()
    try:
        result = run_training(job, progress)
    except KeyboardInterrupt:
        raise InterruptError(f"interrupted; {way_to_go_on(out)}") from None
    if not result.first:
        return
    report_damage(result.damaged)
    if result.validation is not None:
        terminal.tell(f"best validation GAP {result.validation.gap:.4f}")
    terminal.say(f"{result.model}")
