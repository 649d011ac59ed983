"""topgb predict."""

from pathlib import Path
from typing import Annotated

import typer

from topgb.cli.arguments import (
    Address,
    Data,
    Device,
    EngineOption,
    Force,
    ModelOrRun,
    OnDamagedOption,
    ResidentOption,
    UseEma,
    Vocabulary,
    multiply_fast,
    named,
    report_cut,
    report_damage,
)


def predict(
    model: ModelOrRun,
    data: Data,
    out: Annotated[Path, typer.Option(help="The CSV to write; gzipped if its name ends in .gz.")],
    use_ema: UseEma = None,
    names: Annotated[bool, typer.Option("--names", help="Add a third column, ClassNames.")] = False,
    vocabulary: Vocabulary = None,
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
    resident: ResidentOption = None,
    engine: EngineOption = "local",
    address: Address = None,
) -> None:
    """Write the challenge's CSV: each video's 20 best classes with their probabilities.

    --names adds their names, those of --vocabulary (which implies it) or else the model's, joined by "; ".

    With --engine ray a stopped run goes on with the same command: finished shards stay.
    """
    from topgb.errors import InputError
    from topgb.evaluation.opening import open_for
    from topgb.evaluation.predict import CsvOptions, model_identity, write_predictions
    from topgb.progress import TerminalProgress
    from topgb.training.opened import open_for_engine

    multiply_fast(device)
    opened = open_for_engine(model, use_ema, device, resident, engine, address)
    class_names = named(opened.here.header, vocabulary).class_names if names or vocabulary is not None else None
    if names and class_names is None:
        raise InputError(f"{model} names no classes; give their --vocabulary, or leave out --names")
    dataset = open_for(opened.here, data, on_damaged, with_labels=False)
    identity = None if engine == "local" else model_identity(opened.here, opened.device, resident)
    options = CsvOptions(force, class_names, identity)
    videos = write_predictions(opened.model, dataset, out, opened.device, options, TerminalProgress(), opened.engine)
    report_damage(dataset.damaged)
    report_cut(dataset)
    typer.echo(f"{out}: {videos:,} videos")
