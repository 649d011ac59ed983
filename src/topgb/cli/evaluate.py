"""topgb eval and topgb predict."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topgb.cli.arguments import (
    Data,
    Device,
    Force,
    Json,
    ModelOrRun,
    OnDamagedOption,
    UseEma,
    open_model,
    report_damage,
)

if TYPE_CHECKING:
    from topgb.evaluation.metrics import Scores


def evaluate(
    model: ModelOrRun,
    data: Data,
    use_ema: UseEma = None,
    json: Json = False,
    per_class: Annotated[Path | None, typer.Option(help="Also write a CSV with every class's figures.")] = None,
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
) -> None:
    """Score a model on labelled records: GAP@20, Hit@1, PERR, MAP, loss."""
    from topgb.devices import choose_device
    from topgb.evaluation.score import evaluate as score
    from topgb.evaluation.score import open_for, write_per_class
    from topgb.files import refuse_existing
    from topgb.progress import TerminalProgress

    if per_class is not None:
        refuse_existing(per_class, force)
    chosen = choose_device(device)
    loaded = open_model(model, use_ema, chosen)
    dataset = open_for(loaded, data, on_damaged)
    metrics = score(loaded, dataset, chosen, TerminalProgress())
    scores = metrics.compute()
    report_damage(dataset.damaged)
    if json:
        typer.echo(json_module.dumps(scores.to_json()))
    else:
        _print(scores, dataset.classes, int((metrics.positives > 0).sum()))
    if per_class is not None:
        write_per_class(per_class, metrics, loaded.header, force)


def _print(scores: "Scores", classes: int, present: int) -> None:
    typer.echo(f"videos   {scores.videos:,}")
    typer.echo(f"GAP@20   {scores.gap:.4f}")
    typer.echo(f"Hit@1    {scores.hit_at_1:.4f}")
    typer.echo(f"PERR     {scores.perr:.4f}")
    typer.echo(f"MAP      {scores.map:.4f}   over all {classes:,} classes")
    typer.echo(f"         {scores.map_present:.4f}   over the {present:,} classes that occur")
    typer.echo(f"loss     {scores.loss:.4f}")


def predict(
    model: ModelOrRun,
    data: Data,
    out: Annotated[Path, typer.Option(help="The CSV to write; gzipped if its name ends in .gz.")],
    use_ema: UseEma = None,
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
) -> None:
    """Write the challenge's CSV: each video's 20 best classes with their probabilities."""
    from topgb.devices import choose_device
    from topgb.evaluation.predict import write_predictions
    from topgb.evaluation.score import open_for
    from topgb.progress import TerminalProgress

    chosen = choose_device(device)
    loaded = open_model(model, use_ema, chosen)
    dataset = open_for(loaded, data, on_damaged, with_labels=False)
    videos = write_predictions(loaded, dataset, out, chosen, force, TerminalProgress())
    report_damage(dataset.damaged)
    typer.echo(f"{out}: {videos:,} videos")
