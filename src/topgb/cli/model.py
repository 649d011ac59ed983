"""topgb model: what is done to model files."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from topgb.cli.arguments import Json

app = typer.Typer(help="Look at model files, and make new ones from them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("show")
def show(path: Annotated[Path, typer.Argument(help="A model file.", metavar="MODEL")], json: Json = False) -> None:
    """Print a model file's members, tensors, bytes, origin and class names."""
    from topgb.modelfile import read_model_file
    from topgb.modelfile.describe import describe, to_json

    header, tensors = read_model_file(path)
    if json:
        typer.echo(json_module.dumps(to_json(header, tensors, path.stat().st_size)))
    else:
        typer.echo(describe(header, tensors, path.stat().st_size))
