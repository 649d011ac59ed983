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
    from topgb.api.training import train as run_training
    from topgb.devices import flush_subnormals, keep_freed_memory
    from topgb.errors import InterruptError
    from topgb.training.checkpoint import way_to_go_on

    keep_freed_memory()
    # Before products are timed: PyTorch's threads inherit the setting when they start.
    flush_subnormals()
    multiply_fast(device)
    try:
        result = run_training(
            recipe,
            data,
            out,
            validate=validate,
            set=settings,
            init_from=init_from,
            new_head=new_head,
            ema_source=ema_source,
            ema_halflife=ema_halflife,
            teacher=teacher,
            distill_weight=distill_weight,
            vocabulary=vocabulary,
            resume=resume,
            force=force,
            on_damaged=on_damaged,
            workers=workers,
            oversubscribe=oversubscribe,
            checkpoint_minutes=checkpoint_minutes,
            device=device,
            devices=devices,
            num_nodes=num_nodes,
        )
    except KeyboardInterrupt as interrupt:
        asked = interrupt.__cause__
        raise (
            asked if isinstance(asked, InterruptError) else InterruptError(f"interrupted; {way_to_go_on(out)}")
        ) from None
    if not result.first:
        return
    report_damage(result.damaged)
    if result.validation is not None:
        terminal.tell(f"best validation GAP {result.validation.gap:.4f}")
    terminal.say(f"{result.model}")
