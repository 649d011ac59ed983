"""topgb distill: a teacher's probabilities for students to learn from."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from topgb.cli.arguments import Data, Device, Force, OnDamagedOption, ResidentOption, report_damage


def distill(
    teacher: Annotated[
        Path, typer.Argument(help="A model file (an ensemble, say), or the directory of a run.", metavar="MODEL|RUN")
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder to fill, a file a shard.")],
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
) -> None:
    """Write a teacher's probabilities for every video, for topgb train --teacher.

    A stopped run goes on with the same command: finished shards stay. Records need no labels.
    """
    from topgb.devices import choose_device, keep_freed_memory
    from topgb.evaluation.distill import distill as write_scores
    from topgb.evaluation.distill import open_records, open_teacher
    from topgb.progress import TerminalProgress

    keep_freed_memory()
    chosen = choose_device(device)
    model, identity = open_teacher(teacher, chosen, resident)
    dataset = open_records(model, data, on_damaged, score_format)
    done = write_scores(model, dataset, out, chosen, identity, top_k, score_format, force, TerminalProgress())
    report_damage(dataset.damaged)
    each = f", {done.bytes / done.videos:,.0f} bytes a video" if done.videos else ""
    typer.echo(f"{out}: scores of {done.videos:,} videos{each}")
