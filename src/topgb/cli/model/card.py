"""topgb model card."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Device, Force, ModelOrRun, OnDamagedOption, multiply_fast


def card(
    model: ModelOrRun,
    out: Annotated[Path, typer.Option(help="The Markdown file to write, such as README.md.")],
    data: Annotated[str | None, typer.Option(help="Labelled records to score the model on.", metavar="DATA")] = None,
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
) -> None:
    """Write a model card in the Hugging Face hub's format: front matter, scores, use, classes."""
    from topgb.api.cards import card as write

    multiply_fast(device)
    write(model, out, data=data, force=force, on_damaged=on_damaged, device=device)
    terminal.say(f"{out}")
