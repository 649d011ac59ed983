"""topgb model average."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topgb.cli.arguments import Force

if TYPE_CHECKING:
    pass


ModelFiles = Annotated[list[Path], typer.Argument(help="Two model files or more.", metavar="MODEL…")]


Out = Annotated[Path, typer.Option(help="The model file to write.")]


def average(paths: ModelFiles, out: Out, force: Force = False) -> None:
    """Average the weights of models of one shape, batch-norm statistics included.

    Stored in any encoding, they must agree in everything that shapes a prediction; the mean is stored as float32.
    """
    from topgb.combining.average import average as average_files

    header = average_files(paths, out, force)
    typer.echo(f"{out}: the mean of {len(paths)} models, {len(header.tensors)} tensors")
