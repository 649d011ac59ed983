"""topgb model: what is done to model files."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from topgb.cli.arguments import Force, Json

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


@app.command("import-tf")
def import_tf(
    prefix: Annotated[
        Path, typer.Argument(help="A TensorFlow 1 checkpoint of the 2018 system, without .index.", metavar="PREFIX")
    ],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    use_ema: Annotated[bool, typer.Option("--use-ema", help="Take the moving averages, not the weights.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What no shape tells: a 2018 flag (dbof_pooling_method=average) or an option (model.pooling=average).",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Make a model file of a 2018 checkpoint; TensorFlow is not needed.

    The model's class is read from model_flags.json beside the checkpoint, or given with --set model=NetVLADModelLF;
    sizes come from the variables. Flags that leave no trace in them have their 2018 defaults unless set:
    dbof_pooling_method, gating_remove_diag, fv_coupling_factor, moe_l2, a ReLU where there is no batch norm, and
    moe_prob_gating_input where the classifier's input is as wide as its output.
    """
    from topgb.modelfile.import_2018 import import_checkpoint
    from topgb.training.recipe import parse_overrides

    imported = import_checkpoint(prefix, out, use_ema, parse_overrides(settings), force)
    if imported.unknown:
        typer.echo("variables that this model does not have were left out:", err=True)
        for name in imported.unknown:
            typer.echo(f"  {name}", err=True)
    model = imported.header.members[0].model
    typer.echo(f"{out}: {model.aggregator} with {model.head}, {imported.header.classes:,} classes")
