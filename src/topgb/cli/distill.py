"""topgb distill: a teacher's probabilities for students to learn from."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from topgb import terminal
from topgb.cli.arguments import (
    Address,
    Data,
    Device,
    EngineOption,
    Force,
    OnDamagedOption,
    PrecisionOption,
    ResidentOption,
    multiply_fast,
    report_damage,
)


def distill(
    teacher: Annotated[
        Path, typer.Argument(help="A model file (an ensemble, say), or the directory of a run.", metavar="MODEL|RUN")
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder to fill, with one file per shard.")],
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Keep each video's best classes only, as many as this.  [default: every class]"),
    ] = None,
    score_format: Annotated[
        Literal["safetensors", "tfrecord"],
        typer.Option("--format", help="Scores beside the records, or copies of the records with them inside (2018)."),
    ] = "safetensors",
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
    resident: ResidentOption = None,
    engine: EngineOption = "local",
    address: Address = None,
    precision: PrecisionOption = "float32",
) -> None:
    """Write a teacher's probabilities for every video, for topgb train --teacher.

    If it is stopped, the same command goes on: finished shards stay. Records need no labels.
    """
    from topgb.evaluation.distill import DistillOptions, open_records, teacher_identity
    from topgb.evaluation.distill import distill as write_scores
    from topgb.evaluation.opening import warn_of_videos
    from topgb.progress import TerminalProgress
    from topgb.training.opened import open_for_engine, open_stored

    multiply_fast(device)
    opened = open_for_engine(teacher, None, device, resident, engine, address, precision)
    identity = teacher_identity(open_stored(teacher), opened.device, resident, opened.here.precision)
    dataset = open_records(opened.here, data, on_damaged, score_format)
    options = DistillOptions(top_k, score_format, force, opened.engine, opened.here.header.class_names)
    done = write_scores(opened.model, dataset, out, opened.device, identity, options, TerminalProgress())
    report_damage(dataset.damaged)
    warn_of_videos(dataset)
    each = f", {done.bytes / done.videos:,.0f} bytes a video" if done.videos else ""
    terminal.say(f"{out}: scores of {done.videos:,} videos{each}")
