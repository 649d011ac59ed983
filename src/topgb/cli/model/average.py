"""topgb model average."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force, ModelsOrRuns

Out = Annotated[Path, typer.Option(help="The model file to write.")]


def average(models: ModelsOrRuns, out: Out, force: Force = False) -> None:
    """Average the weights of models of one shape, batch-norm statistics included.

    Stored in any encoding, they must agree in everything that shapes a prediction; the mean is stored as float32.
    """
    from topgb.combining.average import average as average_files
    from topgb.training.opened import open_stored

    header = average_files([open_stored(model) for model in models], out, force)
    terminal.say(f"{out}: the mean of {len(models)} models, {len(header.tensors)} tensors")
