"""topgb model remember."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force, ModelOrRun, OnDamagedOption, multiply_fast


def remember(
    model: ModelOrRun,
    data: Annotated[str, typer.Option(help="Labelled records to keep: a file, a folder, a glob in quotes, a URL.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    neighbours: Annotated[int, typer.Option(min=1, help="How many of the most similar videos count.")] = 50,
    temperature: Annotated[float, typer.Option(help="The smaller, the more the nearest ones count.")] = 0.06,
    on_damaged: OnDamagedOption = "stop",
    force: Force = False,
) -> None:
    """Make a model that gives a video the labels of the most similar records, by the model's hidden layer.

    Mixed into an ensemble (topgb model ensemble A R --weights 0.75,0.25) it knows what the others have forgotten.
    """
    from topgb.combining.remember import NeighbourOptions
    from topgb.combining.remember import remember as write_memory
    from topgb.devices import keep_freed_memory
    from topgb.errors import InputError
    from topgb.progress import TerminalProgress
    from topgb.training.opened import open_stored

    if not temperature > 0:
        raise InputError(f"--temperature {temperature:g} is not above 0")
    keep_freed_memory()
    multiply_fast("cpu")
    kept = NeighbourOptions(neighbours, temperature)
    header = write_memory(open_stored(model), data, out, kept, force, on_damaged, TerminalProgress())
    options = header.members[0].model.to_json()["head"]
    terminal.say(f"{out}: {options['videos']:,} videos with {options['labels']:,} labels, {out.stat().st_size:,} bytes")
