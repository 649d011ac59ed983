"""topgb predict."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import (
    Address,
    Data,
    Device,
    EngineOption,
    Force,
    ModelOrRun,
    OnDamagedOption,
    PrecisionOption,
    ResidentOption,
    UseEma,
    Vocabulary,
    multiply_fast,
    report_damage,
)


def predict(
    model: ModelOrRun,
    data: Data,
    out: Annotated[Path, typer.Option(help="The file to write; gzipped if its name ends in .gz.")],
    wanted: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="challenge; or a table with id, class, name, probability: csv, jsonl, parquet.  [default: by the "
            "ending .jsonl or .parquet, else challenge]",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="The best K classes of each video.", metavar="K")] = 20,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="In tables: the least probability of a class, or model for the file's own thresholds.",
            metavar="T|model",
        ),
    ] = None,
    use_ema: UseEma = None,
    names: Annotated[bool, typer.Option("--names", help="Add a third column, ClassNames, to the challenge's.")] = False,
    vocabulary: Vocabulary = None,
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
    resident: ResidentOption = None,
    engine: EngineOption = "local",
    address: Address = None,
    precision: PrecisionOption = "float32",
    segments: Annotated[
        bool, typer.Option("--segments", help="Write each class's best segments, Class,Segments, as in 2019.")
    ] = False,
    k: Annotated[
        int | None,
        typer.Option(min=1, help="With --segments: the best K of each class.  [default: 100000]", metavar="K"),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="With --segments: a CSV whose column Index lists the classes.  [default: those of its training]"
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="With --segments: rank in temporary files where more than this is needed: 500M."),
    ] = None,
) -> None:
    """Write each video's best classes with their probabilities: the challenge's CSV, or a table.

    --names adds to the CSV the names of the classes, those of --vocabulary (which implies it) or else the model's,
    joined by "; ". Tables have them anyway.

    With --engine ray, if it is stopped, the same command goes on: finished shards stay.
    """
    from topgb.api.predictions import predict as write

    multiply_fast(device)
    found = write(
        model, data, out, format=wanted, top=top, threshold=threshold, use_ema=use_ema, names=names,
        vocabulary=vocabulary, force=force, on_damaged=on_damaged, device=device, resident=resident, engine=engine,
        address=address, precision=precision, segments=segments, k=k, classes=classes, memory=memory,
    )  # fmt: skip
    report_damage(found.damaged)
    terminal.say(f"{out}: {found.videos:,} {'segments' if segments else 'videos'}")
