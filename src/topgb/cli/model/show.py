"""topgb model show."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from topgb.cli.arguments import Json, Vocabulary, named


def show(
    path: Annotated[Path, typer.Argument(help="A model file.", metavar="MODEL")],
    vocabulary: Vocabulary = None,
    json: Json = False,
) -> None:
    """Print a model file's members, tensors, bytes, origin and class names."""
    from topgb.modelfile import read_model_file
    from topgb.modelfile.describe import describe, to_json

    header, tensors = read_model_file(path)
    header = named(header, vocabulary)
    if json:
        typer.echo(json_module.dumps(to_json(header, tensors, path.stat().st_size)))
    else:
        typer.echo(describe(header, tensors, path.stat().st_size))
