"""topgb model export: a file that runs without topgb."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from topgb import terminal
from topgb.cli.arguments import Force, ModelOrRun


def export(
    model: ModelOrRun,
    to: Annotated[Literal["onnx", "pt2"], typer.Option(help="ONNX, or a program for torch.export.load.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write.  [default: the model's name with the ending .onnx or .pt2]")
    ] = None,
    takes: Annotated[
        Literal["stored", "float"],
        typer.Option("--input", help="The features to take: as records store them, or raw float values."),
    ] = "stored",
    force: Force = False,
) -> None:
    """Write a file that gives a model file's probabilities without topgb: in ONNX Runtime, or in plain PyTorch.

    It takes features, stored ones (bytes) or raw values, and the videos' numbers of frames; the members' mixture and
    the decoding of the weights are inside. docs/export.md shows how to run it.
    """
    from topgb.modelfile.export import export_model
    from topgb.training.opened import beside, open_stored

    stored = open_stored(model)
    out = beside(model).with_suffix(f".{to}") if out is None else out
    for file in export_model(stored, out, to, force, takes):
        terminal.say(f"{file}: {file.stat().st_size:,} bytes, the model file has {stored.file_bytes:,}")
