"""topgb report."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import (
    Data,
    Device,
    Force,
    ModelsOrRuns,
    OnDamagedOption,
    Vocabulary,
    multiply_fast,
    report_damage,
)


def report(
    models: ModelsOrRuns,
    data: Data,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    title: Annotated[str, typer.Option(help="The page's heading.")] = "topgb report",
    vocabulary: Vocabulary = None,
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
) -> None:
    """Write one HTML page about models or runs, scored on labelled records: curves, scores with intervals, mistakes.

    It loads nothing from elsewhere, is readable in light, in dark and on paper, and says how the models were made.
    """
    from topgb.api.reporting import report as write

    multiply_fast(device)
    found = write(
        list(models), data, out, title=title, vocabulary=vocabulary, force=force, on_damaged=on_damaged, device=device
    )
    report_damage(found.damaged)
    for name, scores in found.scores.items():
        terminal.say(f"GAP@20 {scores['gap']:.4f}  F1 {scores['f1_micro']:.4f}  {name}")
    terminal.say(f"report: {out}")
